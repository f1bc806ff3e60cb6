"""No calibration: probabilities as the scores claim them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from affectlens.probes.calibration.base import CalibrationKind, linked


@dataclass(frozen=True)
class Uncalibrated:
    """Scores are taken at their word."""

    @property
    def kind(self) -> str:
        """See `affectlens.probes.calibration.base.Calibration`."""
        return NONE.name

    def probabilities(
        self, scores: Float[Tensor, "n class"], link: str, exclusive: bool
    ) -> Float[Tensor, "n class"]:
        """See `affectlens.probes.calibration.base.Calibration`."""
        return linked(scores, link, exclusive)

    def parts(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


NONE = CalibrationKind(
    "none",
    "probabilities as the scores claim them",
    lambda *_: Uncalibrated(),
    lambda _: Uncalibrated(),
)
