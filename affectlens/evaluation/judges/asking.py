"""Questions to a model behind an OpenAI-compatible address, asked until the answer can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from affectlens.core import DataError
from affectlens.serving.checking import Answer, Server

PATH = "/v1/chat/completions"
KEY = "OPENAI_API_KEY"
CONCURRENT = 8
TRIES = 3
"""Times that a question is asked while the answer cannot be read."""

T = TypeVar("T")


def ask_until_read(
    server: Server,
    body: Mapping[str, Any],
    read: Callable[[Answer], T | None],
) -> T | None:
    """What is read of the first answer that can be; None if none of :data:`TRIES` can.

    Args:
        server: Where.
        body: Of the request, with the name of the model.
        read: Gives None where the answer says nothing.

    Raises:
        DataError: If nothing answers, or the server refuses.
    """
    for _ in range(TRIES):
        answer = server.ask(PATH, body)
        if answer.status in (401, 403):
            raise DataError(f"The judge at {server.url} wants another API key; set {KEY}.")
        if answer.status == 404:
            raise DataError(
                f"The server at {server.url} has no {PATH}, or no model {body['model']}."
            )
        found = read(answer)
        if found is not None:
            return found
    return None


def content_of(answer: Answer) -> str:
    """What the model said.

    Raises:
        LookupError, TypeError: If it is no answer of a chat.
    """
    return answer.body["choices"][0]["message"]["content"]
