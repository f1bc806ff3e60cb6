"""Questions to a model behind an OpenAI-compatible address, asked until the answer can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import sleep
from typing import Any, TypeVar

from affectlens.core import DataError
from affectlens.serving.checking import Answer, Server

PATH = "/v1/chat/completions"
KEY = "OPENAI_API_KEY"
CONCURRENT = 8
TRIES = 3
"""Times that a question is asked while the answer cannot be read."""
PAUSE = 0.5
"""Seconds before a server that did not answer, or was busy, is asked again; then twice that, …"""
TIMEOUT = 60.0
"""Seconds after which a server that stalls counts as one that did not answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Unread:
    """A question without an answer.

    Attributes:
        why: What came instead, for people.
    """

    why: str


def ask_until_read(
    server: Server,
    body: Mapping[str, Any],
    read: Callable[[Answer], T | None],
) -> T | Unread:
    """What is read of the first answer that can be.

    An answer that cannot be read is asked for again at once; after silence, a refusal for being
    busy (429) or a failure of the server (5xx) there is a pause that doubles.

    Args:
        server: Where.
        body: Of the request, with the name of the model.
        read: Gives None where the answer says nothing.

    Returns:
        What was read, or why none of :data:`TRIES` answers could be.

    Raises:
        DataError: If the server wants a key, or has no such path or model: asking again is no use.
    """
    why = ""
    for attempt in range(TRIES):
        try:
            answer = server.ask(PATH, body)
        except DataError as error:
            why = str(error)
            failed = True
        else:
            if answer.status in (401, 403):
                raise DataError(f"The judge at {server.url} wants another API key; set {KEY}.")
            if answer.status == 404:
                raise DataError(
                    f"The server at {server.url} has no {PATH}, or no model {body['model']}."
                )
            found = read(answer) if answer.status < 400 else None
            if found is not None:
                return found
            failed = answer.status == 429 or answer.status >= 500
            why = answer.sentence if answer.status >= 400 else "its answers cannot be read"
        if failed and attempt + 1 < TRIES:
            sleep(PAUSE * 2**attempt)
    return Unread(why)


def content_of(answer: Answer) -> str:
    """What the model said.

    Raises:
        LookupError, TypeError: If it is no answer of a chat.
    """
    return answer.body["choices"][0]["message"]["content"]
