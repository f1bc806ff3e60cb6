"""Replies of the arms on disk: each arm is kept once it is done, whatever happens to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, DataError, fingerprint
from affectlens.core.artefact import file_fingerprint, read_json, write_json
from affectlens.core.jsonl import read_jsonl, write_jsonl

if TYPE_CHECKING:
    from affectlens.evaluation import Reply, Request
    from affectlens.pipeline.settings import EvaluateSettings
    from affectlens.pipeline.stage import StageRun
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class ArmFiles:
    """The replies of an arm of a run.

    Attributes:
        name: One of `affectlens.evaluation.ARMS`.
        requests: What is to be generated.
        pack: What it is steered with; None if it is not.
    """

    name: str
    requests: Sequence[Request]
    pack: SteeringPack | None

    @property
    def file(self) -> str:
        """Its replies, relative to the run folder."""
        return file_of(self.name)

    def key(self, run: StageRun) -> str:
        """Equal if its replies would be the same."""
        settings: EvaluateSettings = run.settings
        asked = [
            (r.event.id, r.event.text, r.emotion, str(r.spec), r.system) for r in self.requests
        ]
        return fingerprint(
            self.name,
            asked,
            None if self.pack is None else self.pack.fingerprint,
            settings.generation,
            settings.placement,
            settings.backend,
            run.made_by(),
        )

    def done(self, run: StageRun) -> bool:
        """Whether its replies are there, made under the same key, and whole."""
        try:
            known = read_json(self._receipt(run))
            return known == self._facts(run)
        except (ArtefactError, OSError):
            return False

    def save(self, run: StageRun, replies: Sequence[Reply]) -> None:
        """Write its replies, then that they are done."""
        save_replies(replies, run.folder / self.file)
        write_json(self._receipt(run), self._facts(run))

    def _receipt(self, run: StageRun) -> Path:
        return run.folder / "state" / f"arm_{self.name}.json"

    def _facts(self, run: StageRun) -> dict[str, str]:
        return {"key": self.key(run), "sha256": file_fingerprint(run.folder / self.file)}


def file_of(arm: str) -> str:
    """Where the replies of an arm lie, relative to the run folder."""
    return f"replies/{arm}.jsonl"


def save_replies(replies: Sequence[Reply], path: Path) -> None:
    """Write replies as JSON lines."""
    write_jsonl(path, (reply.to_dict() for reply in replies))


def load_replies(path: Path) -> list[Reply]:
    """Inverse of `save_replies`.

    Raises:
        ArtefactError: If the file is missing or damaged.
    """
    from affectlens.evaluation import Reply

    try:
        return [Reply.from_dict(row) for row in read_jsonl(path)]
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); delete it and run again.") from error
