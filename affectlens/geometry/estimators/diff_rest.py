"""Mean difference to the rows of all other emotions."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Sums, Weights
from affectlens.geometry.estimators.means import class_sums


def _diff_rest(rows: Rows, weight: Weights) -> Displacements:
    return _rest_difference(*class_sums(rows, weight))


def _summed(sums: Sums) -> Displacements:
    return _rest_difference(sums.total, sums.count[..., None])


def _rest_difference(
    sums: Displacements, counts: Float[Tensor, "resample emotion 1"]
) -> Displacements:
    rest = (sums.sum(1, keepdim=True) - sums) / (counts.sum(1, keepdim=True) - counts).clamp_min(1)
    return sums / counts.clamp_min(1) - rest


DIFF_REST = Estimator(
    "diff_rest",
    "mean difference to the other emotions",
    _diff_rest,
    grouped=False,
    neutral=False,
    from_sums=_summed,
)
