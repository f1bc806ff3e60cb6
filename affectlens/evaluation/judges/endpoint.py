"""A blind judge behind an OpenAI-compatible address: which of these labels does a text show?

Unlike `told.ToldJudge` it is never told which label was wanted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from affectlens.core import NEUTRAL, DataError, UnknownNameError, emotion_name, fingerprint
from affectlens.evaluation.judges.asking import (
    CONCURRENT,
    KEY,
    TIMEOUT,
    Unread,
    ask_until_read,
    content_of,
)
from affectlens.evaluation.judges.base import GARBLED, UNJUDGED, Verdicts
from affectlens.serving.checking import Answer, Server

_TASK = (
    "You name the tone of short texts. Choose the one label that fits the text best out of this "
    "list: {labels}.{neutral} Choose garbled if the text is no language any more. Answer in JSON "
    'alone: {{"label": "..."}}.'
)
_PLAIN = " Choose neutral if it shows none of the others."
_OBJECT = re.compile(r"\{.*?\}", re.DOTALL)


@dataclass(frozen=True)
class EndpointJudge:
    """Asks a language model for one of the labels.

    Attributes:
        server: Where.
        model: What the server calls its model.
        own: The labels of the run; ``garbled`` can be chosen too.
    """

    server: Server
    model: str
    own: tuple[str, ...]

    name = "endpoint"

    @classmethod
    def at(cls, address: str, labels: Sequence[str]) -> EndpointJudge:
        """Of an address, with ``#model`` behind it or the first model that is served.

        The key, if one is needed, is in the environment as ``OPENAI_API_KEY``.

        Raises:
            DataError: If it is no address, or nothing answers there.
        """
        url, _, model = address.partition("#")
        server = Server(url, os.environ.get(KEY), TIMEOUT)
        return cls(server, model or _first_model(server), tuple(labels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label it may choose."""
        return (*self.own, GARBLED)

    @property
    def fingerprint(self) -> str:
        """Hash of address, model, labels and question; what runs behind an address may change."""
        return fingerprint(self.server.url, self.model, self.labels, _TASK)

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Ask about each text alone; one without an answer that can be read stays unjudged.

        Raises:
            DataError: If there is no answer to any, or the server refuses.
        """
        with ThreadPoolExecutor(CONCURRENT) as pool:
            said = list(pool.map(self._ask, texts))
        failures = [one.why for one in said if isinstance(one, Unread)]
        if said and len(failures) == len(said):
            raise DataError(
                f"The judge at {self.server.url} answered none of {len(said)} questions "
                f"({failures[0].rstrip('.')}); try again later, or name another judge."
            )
        chosen = tuple(UNJUDGED if isinstance(one, Unread) else one for one in said)
        rows = np.full((len(said), len(self.labels)), np.nan)
        for row, label in enumerate(chosen):
            if label != UNJUDGED:
                rows[row] = np.eye(len(self.labels))[self.labels.index(label)]
        return Verdicts(self.labels, chosen, rows)

    def _ask(self, text: str) -> str | Unread:
        task = _TASK.format(
            labels=", ".join(self.own), neutral=_PLAIN if NEUTRAL in self.own else ""
        )
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": task},
                {"role": "user", "content": f"Text: {text}"},
            ],
            "temperature": 0,
            "max_tokens": 40,
        }
        return ask_until_read(self.server, body, lambda answer: read_label(answer, self.labels))


def read_label(answer: Answer, labels: Sequence[str]) -> str | None:
    """The label that an answer names; None if it names none of them."""
    try:
        content = content_of(answer)
        found = _OBJECT.search(content)
        named = str(json.loads(found[0])["label"]) if found else content.strip(" .\"'\n")
        return emotion_name(named, tuple(labels))
    except (LookupError, TypeError, ValueError, UnknownNameError):
        return None


def _first_model(server: Server) -> str:
    answer = server.ask("/v1/models")
    try:
        return str(answer.body["data"][0]["id"])
    except (LookupError, TypeError):
        raise DataError(
            f"{server.url} lists no models ({answer.sentence}); name one as {server.url}#MODEL."
        ) from None
