"""Mean difference to the mean of the group."""

from __future__ import annotations

from affectlens.geometry.estimators.base import Displacements, Estimator, Sums
from affectlens.geometry.estimators.means import centred_rows


def _summed(sums: Sums) -> Displacements:
    """Over complete groups the mean of differences is the difference of means."""
    means = sums.total / sums.groups[:, None, None]
    return means - means.mean(1, keepdim=True)


GROUP_CENTRED = Estimator(
    "group_centred",
    "mean difference to the group's mean",
    centred_rows,
    grouped=True,
    neutral=False,
    from_sums=_summed,
)
