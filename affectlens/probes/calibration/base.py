"""What a calibration is: a map from a probe's scores to probabilities that mean what they say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SOFTMAX, SIGMOID = "softmax", "sigmoid"


class Calibration(Protocol):
    """Fitted on rows that neither the probe was fitted on nor anything is scored by."""

    @property
    def kind(self) -> str:
        """Its name in `affectlens.probes.calibration.CALIBRATIONS`."""
        ...

    def probabilities(
        self, scores: Float[Tensor, "n class"], link: str, exclusive: bool
    ) -> Float[Tensor, "n class"]:
        """Of rows by their scores.

        Args:
            scores: Of the probe.
            link: ``"softmax"`` or ``"sigmoid"``.
            exclusive: Whether a row has one class, so that its probabilities sum to 1.
        """
        ...

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold."""
        ...


@dataclass(frozen=True)
class CalibrationKind:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        fit: ``fit(scores, truth, link, exclusive)`` gives a `Calibration`; ``truth`` is 0 or 1 for
            each row and class.
        restore: Makes one of the parts that a file holds.
    """

    name: str
    help: str
    fit: Callable[..., Calibration]
    restore: Callable[[Mapping[str, Any]], Calibration]


def linked(
    scores: Float[Tensor, "n class"], link: str, exclusive: bool
) -> Float[Tensor, "n class"]:
    """Probabilities as the scores claim them; of exclusive classes they sum to 1."""
    if link == SOFTMAX:
        return scores.softmax(-1)
    each = scores.sigmoid()
    return each / each.sum(-1, keepdim=True).clamp_min(1e-30) if exclusive else each


def check_rows(scores: Float[Tensor, "n class"], truth: Float[Tensor, "n class"]) -> None:
    """Refuse rows that nothing can be calibrated on.

    Raises:
        DataError: If there are none, scores are not finite, or a class never or always occurs.
    """
    if scores.shape != truth.shape or not len(scores):
        raise DataError(
            f"A calibration needs the truth of every score: {list(scores.shape)} scores, "
            f"{list(truth.shape)} truths."
        )
    if not bool(scores.isfinite().all()):
        raise DataError("Scores to calibrate hold NaN or infinity; fit the probe again.")
    found = truth.sum(0)
    if bool((found == 0).any()):
        raise DataError(
            f"Class {int((found == 0).nonzero()[0])} does not occur among the rows to calibrate "
            "on; hold out more groups."
        )
