"""A small stage runner: redo what changed and everything after it, skip the rest.

Each stage writes its files into the run folder and a receipt ``state/<stage>.json`` with the key it
was run under and the SHA-256 of every file. The key is made of the stage's settings, of what it
reads from outside the folder, and of the *contents* of its input stages' files; times and sizes
have no say. The receipt is written last, so a stage that was killed has none and is run again; and
before a stage is run, the receipts of all that follow it are dropped, so they are run again too.
"""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from affectlens.core import ArtefactError, fingerprint
from affectlens.core.artefact import read_json, write_json
from affectlens.core.errors import unknown
from affectlens.pipeline.file_digests import Digests

log = logging.getLogger(__name__)

Files = Sequence[str] | Mapping[str, str]


def peak_rss_mb() -> float:
    """Largest resident memory this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def receipt_file(stage: str) -> str:
    """Where the receipt of a stage lies, relative to the run folder."""
    return f"state/{stage}.json"


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: Also the name of its command.
        needs: Stages whose results it reads.
        depends: Gives everything else its result depends on; asked when the stage's turn comes.
        work: Does it, and returns the files it wrote, relative to the run folder, or a mapping from
            them to the SHA-256 where that is known.
        title: What the progress line says.
    """

    name: str
    needs: tuple[str, ...]
    depends: Callable[[], Any]
    work: Callable[[], Files]
    title: str


@dataclass(frozen=True)
class Receipt:
    """What is known about a finished stage."""

    stage: str
    key: str
    seconds: float
    peak_rss_mb: float
    files: Mapping[str, str]
    """File → SHA-256 of its content."""


@dataclass
class Runner:
    """Runs stages of one folder in order.

    Args:
        folder: The run folder.
        stages: All stages, inputs before users.
        digests: Of the files in it.
        force: Redo stages even if nothing changed.
        on_stage: Told ``(stage, "skipped" | "started" | "done", seconds)``.
    """

    folder: Path
    stages: Sequence[Stage]
    digests: Digests
    force: bool = False
    on_stage: Callable[[Stage, str, float], None] = lambda _stage, _what, _seconds: None
    _receipts: dict[str, Receipt] = field(default_factory=dict[str, Receipt], init=False)

    def run(self, until: str | None = None) -> list[Receipt]:
        """Run what is needed for one stage (all of them if None).

        Raises:
            UnknownNameError: If there is no such stage.
            AffectLensError: Whatever a stage raises; finished stages keep their receipts.
        """
        names = [stage.name for stage in self.stages]
        if until is not None and until not in names:
            raise unknown("stage", until, names)
        wanted = set(self._ancestors(until)) if until else set(names)
        receipts: list[Receipt] = []
        try:
            for stage in self.stages:
                if stage.name in wanted:
                    receipts.append(self._ensure(stage))
                    self._receipts[stage.name] = receipts[-1]
        finally:
            self.digests.save()
        return receipts

    def receipt(self, name: str) -> Receipt | None:
        """The receipt of a stage, or None if it never finished or its receipt is damaged."""
        try:
            raw = read_json(self.folder / receipt_file(name))
            return Receipt(
                stage=str(raw["stage"]),
                key=str(raw["key"]),
                seconds=float(raw["seconds"]),
                peak_rss_mb=float(raw["peak_rss_mb"]),
                files={str(file): str(sha) for file, sha in raw["files"].items()},
            )
        except (ArtefactError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def _ancestors(self, name: str) -> Iterable[str]:
        stage = next(s for s in self.stages if s.name == name)
        for need in stage.needs:
            yield from self._ancestors(need)
        yield name

    def _followers(self, name: str) -> Iterable[str]:
        for stage in self.stages:
            if name in stage.needs:
                yield stage.name
                yield from self._followers(stage.name)

    def _ensure(self, stage: Stage) -> Receipt:
        inputs = {need: self._receipts[need].files for need in stage.needs}
        key = fingerprint(stage.name, stage.depends(), inputs)
        known = self.receipt(stage.name)
        if known is not None and not self.force and known.key == key and self._intact(known):
            self.on_stage(stage, "skipped", known.seconds)
            return known
        self.on_stage(stage, "started", 0.0)
        for name in {stage.name, *self._followers(stage.name)}:
            (self.folder / receipt_file(name)).unlink(missing_ok=True)
        started = time.perf_counter()
        files = stage.work()
        seconds = time.perf_counter() - started
        receipt = Receipt(
            stage.name,
            key,
            round(seconds, 2),
            round(peak_rss_mb(), 1),
            self._written(files),
        )
        write_json(self.folder / receipt_file(stage.name), receipt)
        self.on_stage(stage, "done", seconds)
        log.debug("stage %s took %.1f s", stage.name, seconds)
        return receipt

    def _written(self, files: Files) -> Mapping[str, str]:
        if not isinstance(files, Mapping):
            return {file: self._digest(file) for file in files}
        for file, sha in files.items():
            self.digests.learn(self.folder / file, sha)
        return dict(files)

    def _digest(self, file: str) -> str:
        return self.digests.of(self.folder / file)

    def _intact(self, receipt: Receipt) -> bool:
        try:
            return all(self._digest(file) == sha for file, sha in receipt.files.items())
        except OSError:
            return False
