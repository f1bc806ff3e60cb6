"""A judge that is told the target and says yes or no, behind an OpenAI-compatible endpoint.

That is how arXiv 2510.11328 judges. It is no test of what a reader would hear: a judge that is told
what to look for tends to find it, and of garbled text it says yes as well. So its share stands
beside a blind judge's, never alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from affectlens.evaluation.judges.asking import CONCURRENT, KEY, Unread, ask_until_read, content_of
from affectlens.serving.checking import Answer, Server

_TASK = (
    "You rate the tone of short replies. Given an emotion and a reply, decide whether the reply is "
    "written in the style and tone of that emotion; whether its content is good or bad does not "
    'matter. Answer in JSON alone: {"match": 0 or 1, "reason": "a few words"}.'
)
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True)
class ToldJudge:
    """Asks whether a reply is in the tone of an emotion.

    Attributes:
        server: Where.
        model: What the server calls its model.
        temperature, max_tokens: Of its answers, as published.
    """

    server: Server
    model: str
    temperature: float = 0.1
    max_tokens: int = 200

    @classmethod
    def at(cls, url: str, model: str) -> ToldJudge:
        """Of an address; the key, if one is needed, is in the environment as ``OPENAI_API_KEY``.

        Raises:
            DataError: If it is no address.
        """
        return cls(Server(url, os.environ.get(KEY)), model)

    def __call__(
        self,
        texts: Sequence[str],
        targets: Sequence[str],
        advance: Callable[[int], object] = lambda _n: None,
    ) -> list[bool | None]:
        """Whether each text is in the tone of its target; None without an answer to be read.

        Raises:
            DataError: If the server refuses.
        """

        def ask(pair: tuple[str, str]) -> bool | None:
            found = self._ask(*pair)
            advance(1)
            return found

        with ThreadPoolExecutor(CONCURRENT) as pool:
            return list(pool.map(ask, zip(texts, targets, strict=True)))

    def _ask(self, text: str, target: str) -> bool | None:
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": _TASK},
                {"role": "user", "content": f"Emotion: {target}\nReply: {text}"},
            ],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        found = ask_until_read(self.server, body, read_match)
        return None if isinstance(found, Unread) else found


def read_match(answer: Answer) -> bool | None:
    """What an answer says; None if it says neither 0 nor 1."""
    try:
        found = _OBJECT.search(content_of(answer))
        match: Any = json.loads(found[0])["match"] if found else None
    except (LookupError, TypeError, ValueError):
        return None
    return bool(match) if match in (0, 1) else None
