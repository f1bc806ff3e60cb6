"""Tuning points of the arms on disk: an arm is kept once it is measured, whatever happens next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, fingerprint
from affectlens.core.artefact import read_json, write_json
from affectlens.evaluation import StrengthPoint

if TYPE_CHECKING:
    from affectlens.pipeline.settings import TuneSettings
    from affectlens.pipeline.stage import StageRun
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class ArmPoints:
    """The strengths of one arm of a run.

    Attributes:
        run: The stage.
        arm: One of `affectlens.evaluation.ARMS`.
        strengths: The grid it starts from.
        pack: Its vectors.
    """

    run: StageRun
    arm: str
    strengths: tuple[float, ...]
    pack: SteeringPack

    def known(self) -> list[StrengthPoint] | None:
        """What a stopped run has measured under the same key; None if nothing, or on ``force``."""
        if self.run.force:
            return None
        try:
            kept = read_json(self._file)
            if kept["key"] != self._key:
                return None
            return [StrengthPoint(**point) for point in kept["points"]]
        except (ArtefactError, KeyError, TypeError):
            return None

    def save(self, points: Sequence[StrengthPoint]) -> None:
        """Keep them."""
        write_json(self._file, {"key": self._key, "points": [asdict(point) for point in points]})

    @property
    def _file(self) -> Path:
        return self.run.folder / "state" / f"tuning_{self.arm}.json"

    @property
    def _key(self) -> str:
        settings: TuneSettings = self.run.settings
        others = replace(settings, strengths=())
        return fingerprint(
            self.arm, self.strengths, self.pack.fingerprint, others, self.run.made_by()
        )
