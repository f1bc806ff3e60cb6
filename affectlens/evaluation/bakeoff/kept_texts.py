"""Replies that are kept as they come: chunk by chunk, each a file that is whole or not there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.artefact import fingerprint
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.jsonl import read_jsonl, write_jsonl
from affectlens.evaluation.replies import Request, encode_event, generate_replies
from affectlens.evaluation.reply import Reply
from affectlens.serving.coefficients import why_not_served

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.evaluation.backends import Backend
    from affectlens.models import LanguageModel
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack


HERE = "transformers"
"""The back end that is this process."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """A back end that is opened when the first reply is asked of it.

    Attributes:
        name: What it is and where: replies of one are never taken for those of another.
        every_spec: Whether it can do whatever a spec asks for; what it cannot do is done here.
        backend: Opens it, or gives what is open.
    """

    name: str
    every_spec: bool
    backend: Callable[[], Backend]

    def does(self, requests: Sequence[Request]) -> bool:
        """Whether it can answer them."""
        asked = (request.spec for request in requests if request.spec is not None)
        return self.every_spec or all(why_not_served(spec) is None for spec in asked)


@dataclass(frozen=True, eq=False)
class KeptTexts:
    """Generates replies, or reads those that were generated for the same requests.

    Attributes:
        model: Generates, and puts a perplexity on every reply.
        folder: Where they lie.
        generation: Of all of them.
        made_by: What else they depend on: versions, the model's fingerprint, number format.
        chunk: How many are generated together.
        elsewhere: What generates; None: the model, in this process.
    """

    model: LanguageModel
    folder: Path
    generation: GenerationSettings
    made_by: str
    chunk: int
    elsewhere: Elsewhere | None = None

    def replies(
        self,
        name: str,
        requests: Sequence[Request],
        pack: SteeringPack | None = None,
        advance: Callable[[int], object] = lambda _n: None,
    ) -> list[Reply]:
        """One reply per request, in order.

        Args:
            name: To give the replies, and to begin their files with.
            requests: What is asked.
            pack: What steers.
            advance: Told about every reply that is there.

        Raises:
            ArtefactError: If a file cannot be read.
        """
        found: list[Reply] = []
        where, elsewhere = self.where(requests), self.elsewhere
        if elsewhere is not None and where == HERE:
            logger.info("%s is answered here: %s cannot do it.", name, elsewhere.name)
            elsewhere = None
        for start in range(0, len(requests), self.chunk):
            part = requests[start : start + self.chunk]
            file = self.folder / f"{name}-{self._key(part, pack, where)}.jsonl"
            if file.is_file():
                advance(len(part))
            else:
                made = generate_replies(
                    self.model,
                    name,
                    part,
                    self.generation,
                    pack=pack,
                    backend=None if elsewhere is None else elsewhere.backend(),
                    advance=advance,
                )
                write_jsonl(file, (reply.to_dict() for reply in made))
            # Read in any case: a file rounds, and what was stopped must end like what was not.
            found += _read(file, len(part))
        return found

    def where(self, requests: Sequence[Request]) -> str:
        """What answers such requests: the name of the other back end, or this process."""
        other = self.elsewhere
        return HERE if other is None or not other.does(requests) else other.name

    def _key(self, requests: Sequence[Request], pack: SteeringPack | None, where: str) -> str:
        asked = [
            (r.event.id, r.emotion, str(r.spec), self._prompt(r.event, r.system, r.examples))
            for r in requests
        ]
        steered = None if pack is None else pack.fingerprint
        return fingerprint(asked, steered, self.generation, self.made_by, where)

    def _prompt(
        self, event: Record, system: str | None, examples: Sequence[tuple[str, str]]
    ) -> tuple[int, ...]:
        """Token ids: template and tokenizer are part of what was asked."""
        return encode_event(self.model, event, system, examples)


def _read(file: Path, count: int) -> list[Reply]:
    try:
        found = [Reply.from_dict(row) for row in read_jsonl(file)]
    except (DataError, TypeError) as error:
        raise ArtefactError(f"{file} cannot be read ({error}); delete it and run again.") from error
    if len(found) != count:
        raise ArtefactError(
            f"{file} holds {len(found)} replies and not {count}; delete it and run again."
        )
    return found
