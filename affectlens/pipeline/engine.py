"""A small stage runner: redo what changed and everything after it, skip the rest.

Each stage writes its files into the run folder and a receipt ``state/<stage>.json`` with the key it
was run under (parameters, model, inputs' keys) and the fingerprints of its files. The receipt is
written last, so a stage that was killed has none and is run again.
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

log = logging.getLogger(__name__)


def peak_rss_mb() -> float:
    """Largest resident memory this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: Also the name of its command.
        needs: Stages whose results it reads.
        parameters: Everything its result depends on, apart from its inputs.
        work: Does it, and returns the files it wrote, relative to the run folder.
        title: What the progress line says.
    """

    name: str
    needs: tuple[str, ...]
    parameters: Mapping[str, Any]
    work: Callable[[], Sequence[str]]
    title: str


@dataclass(frozen=True)
class Receipt:
    """What is known about a finished stage."""

    stage: str
    key: str
    seconds: float
    peak_rss_mb: float
    files: Mapping[str, tuple[int, int]]
    """File → (bytes, modification time in ns): cheap to check, and catches any rewriting."""


@dataclass
class Runner:
    """Runs stages of one folder in order.

    Args:
        folder: The run folder.
        stages: All stages, inputs before users.
        force: Redo stages even if nothing changed.
        on_stage: Told ``(stage, "skipped" | "started" | "done", seconds)``.
    """

    folder: Path
    stages: Sequence[Stage]
    force: bool = False
    on_stage: Callable[[Stage, str, float], None] = lambda _stage, _what, _seconds: None
    _keys: dict[str, str] = field(default_factory=dict[str, str], init=False)

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
        for stage in self.stages:
            if stage.name in wanted:
                receipts.append(self._ensure(stage))
        return receipts

    def receipt(self, name: str) -> Receipt | None:
        """The receipt of a stage, or None if it never finished or its receipt is damaged."""
        try:
            raw = read_json(self.folder / "state" / f"{name}.json")
            return Receipt(
                stage=str(raw["stage"]),
                key=str(raw["key"]),
                seconds=float(raw["seconds"]),
                peak_rss_mb=float(raw["peak_rss_mb"]),
                files={str(k): (int(v[0]), int(v[1])) for k, v in raw["files"].items()},
            )
        except (ArtefactError, KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None

    def _ancestors(self, name: str) -> Iterable[str]:
        stage = next(s for s in self.stages if s.name == name)
        for need in stage.needs:
            yield from self._ancestors(need)
        yield name

    def _ensure(self, stage: Stage) -> Receipt:
        key = fingerprint(
            stage.name, stage.parameters, {need: self._keys[need] for need in stage.needs}
        )
        self._keys[stage.name] = key
        known = self.receipt(stage.name)
        if known is not None and not self.force and known.key == key and self._intact(known):
            self.on_stage(stage, "skipped", known.seconds)
            return known
        self.on_stage(stage, "started", 0.0)
        started = time.perf_counter()
        files = stage.work()
        seconds = time.perf_counter() - started
        receipt = Receipt(
            stage.name,
            key,
            round(seconds, 2),
            round(peak_rss_mb(), 1),
            {file: self._stamp(file) for file in files},
        )
        write_json(self.folder / "state" / f"{stage.name}.json", receipt)
        self.on_stage(stage, "done", seconds)
        log.debug("stage %s took %.1f s", stage.name, seconds)
        return receipt

    def _stamp(self, file: str) -> tuple[int, int]:
        stat = (self.folder / file).stat()
        return stat.st_size, stat.st_mtime_ns

    def _intact(self, receipt: Receipt) -> bool:
        try:
            return all(self._stamp(file) == stamp for file, stamp in receipt.files.items())
        except OSError:
            return False
