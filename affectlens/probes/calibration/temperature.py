"""Temperature: all scores divided by one number, which changes no ranking.

The number makes the rows to calibrate on likeliest (Guo et al. 2017, arXiv 1706.04599). The loss is
convex in its inverse, so there is one best value; it is found by bisection of the slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.probes.calibration.base import SOFTMAX, CalibrationKind, check_rows, linked

_MOST = 1e3  # sharper or flatter than so many times is never right, only lack of rows
_HALVINGS = 60


@dataclass(frozen=True)
class Temperature:
    """Attributes:
    temperature: What scores are divided by.
    """

    temperature: float

    @property
    def kind(self) -> str:
        """See `affectlens.probes.calibration.base.Calibration`."""
        return TEMPERATURE.name

    def probabilities(
        self, scores: Float[Tensor, "n class"], link: str, exclusive: bool
    ) -> Float[Tensor, "n class"]:
        """See `affectlens.probes.calibration.base.Calibration`."""
        return linked(scores / self.temperature, link, exclusive)

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        return {"temperature": torch.tensor([self.temperature], dtype=torch.float64)}


def fit_temperature(
    scores: Float[Tensor, "n class"],
    truth: Float[Tensor, "n class"],
    link: str,
    exclusive: bool,
) -> Temperature:
    """The temperature under which the truth is likeliest.

    Args:
        scores: Of the probe.
        truth: 0 or 1.
        link: ``"softmax"`` or ``"sigmoid"``.
        exclusive: Plays no part: normalised sigmoids have the temperature of their binary problems.

    Raises:
        DataError: If there are no rows, or a class does not occur.
    """
    del exclusive
    check_rows(scores, truth)
    s, t = scores.double(), truth.to(scores.device).double()

    def slope(inverse: float) -> float:
        """Of the loss by the inverse temperature."""
        said = (s * inverse).softmax(-1) if link == SOFTMAX else (s * inverse).sigmoid()
        return float(((said - t) * s).sum())

    low, high = 1 / _MOST, _MOST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return Temperature(1 / (low * high) ** 0.5)


def restore_temperature(parts: Mapping[str, Any]) -> Temperature:
    """Inverse of `Temperature.parts`."""
    return Temperature(float(parts["temperature"][0]))


TEMPERATURE = CalibrationKind(
    "temperature",
    "scores divided by one number; no ranking changes, and it folds into a pack",
    fit_temperature,
    restore_temperature,
)
