"""Mean difference to the neutral tone of the same content."""

from __future__ import annotations

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Sums, Weights
from affectlens.geometry.estimators.means import over_groups


def _diff_neutral(rows: Rows, weight: Weights) -> Displacements:
    assert rows.neutral is not None
    return over_groups(rows.complete() - rows.neutral[:, None], weight)


def _summed(sums: Sums) -> Displacements:
    assert sums.neutral is not None
    return (sums.total - sums.neutral[:, None]) / sums.groups[:, None, None]


DIFF_NEUTRAL = Estimator(
    "diff_neutral",
    "mean difference to the neutral tone",
    _diff_neutral,
    grouped=True,
    neutral=True,
    from_sums=_summed,
)
