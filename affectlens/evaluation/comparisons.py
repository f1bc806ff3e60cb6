"""Arms against each other: paired by event and target, resampled by scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.core.statistics import paired_difference

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

    from affectlens.evaluation.reply_scores import Scores

MEASURES: Mapping[str, str] = {
    "accuracy": "hit",
    "masked_accuracy": "masked",
    "harmonic": "harmonic",
}
"""What arms are compared on, and the scores whose mean it is."""


@dataclass(frozen=True)
class Comparison:
    """One arm against another on one measure.

    Attributes:
        arm, control: Names of the arms.
        measure: One of :data:`MEASURES`.
        difference: Mean of the arm minus mean of the control.
        ci: 95 % interval by paired bootstrap over scenarios; NaN with a single scenario.
        p: Two-sided, of no difference, not corrected for the number of comparisons; NaN likewise.
        scenarios: How many were resampled.
    """

    arm: str
    control: str
    measure: str
    difference: float
    ci: tuple[float, float]
    p: float
    scenarios: int


def compare(
    scores: Mapping[str, Scores],
    arm: str,
    *,
    controls: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Compare one arm with each of the others.

    Args:
        scores: Arm to its scores, all on the same events and targets.
        arm: The one to compare.
        controls: With which; default: all others.
        seed: Of the bootstrap.

    Raises:
        UnknownNameError: If there are no scores of an arm.
        DataError: If two arms did not answer the same events for the same targets.
    """
    others = [name for name in scores if name != arm] if controls is None else list(controls)
    for name in (arm, *others):
        if name not in scores:
            raise unknown("arm", name, scores)
    first = _by_row(scores[arm], arm)
    found: list[Comparison] = []
    for control in others:
        second = _by_row(scores[control], control)
        if first.keys() != second.keys():
            raise DataError(
                f"The arms {arm} and {control} did not answer the same events for the same "
                "targets, so they cannot be paired; evaluate both again."
            )
        groups = [scores[arm].groups[i] for i in first.values()]
        for measure, attribute in MEASURES.items():
            a: Float[np.ndarray, " row"] = getattr(scores[arm], attribute)
            b: Float[np.ndarray, " row"] = getattr(scores[control], attribute)
            paired = a[list(first.values())], b[[second[key] for key in first]]
            told = paired_difference(*paired, groups, random=seed)
            ci = told.low, told.high
            found.append(Comparison(arm, control, measure, told.mean, ci, told.p, told.clusters))
    return found


def _by_row(scores: Scores, arm: str) -> dict[tuple[str, str], int]:
    """(event, target) to row.

    Raises:
        DataError: If a pair occurs twice.
    """
    keys = list(zip(scores.events, scores.targets, strict=True))
    rows = {key: i for i, key in enumerate(keys)}
    if len(rows) != len(keys):
        raise DataError(
            f"The arm {arm} answers an event twice for one target, so its replies cannot be paired."
        )
    return rows
