"""Least squares with an L2 penalty, in closed form from moments of the rows.

Of numbers (valence, an intensity) as of scikit-learn's ``Ridge(alpha=1 / C)``:

    sum_i w_i (t_ik - W_k x_i - b_k)^2 + 1/C ||W_k||^2

Of classes the targets are +1 for a row's own class and -1 for the others, as of its
``RidgeClassifier``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.estimators.base import CLASSES, NUMBERS, ProbeKind
from affectlens.probes.estimators.exact import as_fit, exactly
from affectlens.probes.estimators.moments import RowMoments


def solve_ridge(
    moments: RowMoments, penalties: Float[Tensor, " penalty"], classes: bool
) -> LinearFit:
    """The probes of one site.

    Args:
        moments: Of its rows; targets are one-hot where these are ``classes``.
        penalties: Values of C.
        classes: Whether scores tell classes apart.
    """
    scale = moments.scale
    gram = moments.gram / (scale[:, :, None] * scale[:, None])
    cross = moments.cross / scale[..., None]
    middle = moments.middle
    if classes:  # +1 and -1
        cross, middle = 2 * cross, 2 * middle - 1
    ridge = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    solved = [
        torch.cholesky_solve(cross, torch.linalg.cholesky(gram + ridge / c))
        for c in penalties.to(gram.device)
    ]
    weights = torch.stack([one.mT / scale[:, None] for one in solved], dim=1)
    bias = middle[:, None] - (weights @ moments.mean[:, None, :, None])[..., 0]
    return as_fit(moments, weights, bias, classes=classes)


fit_ridge = exactly(solve_ridge)
"""See `affectlens.probes.estimators.base.Fit`."""

RIDGE = ProbeKind(
    "ridge",
    "least squares with an L2 penalty, of numbers or of +1 and -1; exact",
    fit_ridge,
    targets=(CLASSES, NUMBERS),
    from_moments=solve_ridge,
)
