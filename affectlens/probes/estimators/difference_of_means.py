"""Difference of means ("mass mean"): the nearest class mean, its axes the raw differences.

Scores are ``(<x, m_k> - |m_k|^2 / 2) / v`` with ``v`` the mean variance within classes: log-odds of
round normal clouds of one size. Features are not standardised, so the axis between two classes is
the vector that is added when one steers by means. No penalty plays a part.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.estimators.base import ProbeKind
from affectlens.probes.estimators.exact import as_fit, exactly
from affectlens.probes.estimators.moments import RowMoments


def solve_difference(
    moments: RowMoments, penalties: Float[Tensor, " penalty"], classes: bool = True
) -> LinearFit:
    """The probes of one site, from moments whose targets are one-hot."""
    _, means, within = moments.classes()
    variance = within.diagonal(dim1=-2, dim2=-1).mean(-1) / moments.total
    if not bool((variance > 0).all()):
        raise DataError(
            "The rows of each class are all the same, so means have no spread to be told apart by."
        )
    weights = means / variance[:, None, None]
    bias = -(means * weights).sum(-1) / 2 - (weights @ moments.mean[..., None])[..., 0]
    many = len(penalties)
    return as_fit(
        moments,
        weights[:, None].expand(-1, many, -1, -1),
        bias[:, None].expand(-1, many, -1),
        classes=classes,
    )


fit_difference_of_means = exactly(solve_difference)
"""See `affectlens.probes.estimators.base.Fit`; all penalties give the same probe."""

DIFFERENCE_OF_MEANS = ProbeKind(
    "difference_of_means",
    "the nearest class mean, axes as one steers by; exact, without a penalty",
    fit_difference_of_means,
    from_moments=solve_difference,
)
