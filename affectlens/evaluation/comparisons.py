"""Arms against each other: paired by event and target, resampled by scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.core.statistics import Difference, against_draws, paired_difference

if TYPE_CHECKING:
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
        DataError: If two arms did not answer the same events for the same targets, or have no
            event that both were judged on.
    """
    others = [name for name in scores if name != arm] if controls is None else list(controls)
    for name in (arm, *others):
        if name not in scores:
            raise unknown("arm", name, scores)
    found: list[Comparison] = []
    for control in others:
        for measure in MEASURES:
            own, (other,), groups = _paired(scores, arm, [control], measure)
            told = paired_difference(own, other, groups, random=seed)
            found.append(_comparison(arm, control, measure, told))
    return found


def compare_draws(
    scores: Mapping[str, Scores], arm: str, draws: Sequence[str], name: str, *, seed: int = 0
) -> list[Comparison]:
    """Compare one arm with several draws of one control, which are a sample themselves.

    Args:
        scores: Arm to its scores, all on the same events and targets.
        arm: The one to compare.
        draws: The arms that are draws of the control.
        name: Of all draws together.
        seed: Of the bootstrap.

    Returns:
        The difference to the mean of the draws; p is the larger of that over scenarios and that
        over draws (`affectlens.core.statistics.against_draws`).

    Raises:
        UnknownNameError: If there are no scores of an arm.
        DataError: If arms did not answer the same events for the same targets.
    """
    for one in (arm, *draws):
        if one not in scores:
            raise unknown("arm", one, scores)
    found: list[Comparison] = []
    for measure in MEASURES:
        own, others, groups = _paired(scores, arm, draws, measure)
        told = against_draws(own, others, groups, random=seed)
        found.append(_comparison(arm, name, measure, told))
    return found


def _comparison(arm: str, control: str, measure: str, told: Difference) -> Comparison:
    ci = told.low, told.high
    return Comparison(arm, control, measure, told.mean, ci, told.p, told.clusters)


def _paired(
    scores: Mapping[str, Scores], arm: str, controls: Sequence[str], measure: str
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, "control row"], list[str]]:
    """An arm's values, those of its controls, and groups, in the order of the arm's rows.

    Rows that some arm has no verdict on are left out.
    """
    rows, others = _by_row(scores[arm], arm), list[np.ndarray]()
    for control in controls:
        theirs = _by_row(scores[control], control)
        if rows.keys() != theirs.keys():
            raise DataError(
                f"The arms {arm} and {control} did not answer the same events for the same "
                "targets, so they cannot be paired; evaluate both again."
            )
        values: np.ndarray = getattr(scores[control], MEASURES[measure])
        others.append(values[[theirs[key] for key in rows]])
    own, every = getattr(scores[arm], MEASURES[measure]), np.stack(others)
    judged = np.flatnonzero(~np.isnan(own) & ~np.isnan(every).any(axis=0))
    if not len(judged):
        raise DataError(
            f"No event has a verdict for {arm} and for {', '.join(controls)}; judge them again."
        )
    return own[judged], every[:, judged], [scores[arm].groups[row] for row in judged]


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
