"""Least squares with an L2 penalty: one exact solve, no steps.

Targets are +1 for a row's own class and -1 for the others, as of scikit-learn's
``RidgeClassifier(alpha=1 / C)``:

    sum_i w_i (t_ik - W_k x_i - b_k)^2 + 1/C ||W_k||^2

In the principal axes of the training rows every penalty is one division.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.geometry.linear_fit import LinearFit, check_rows, principal_axes, standardised
from affectlens.probes.estimators.base import ProbeKind


def fit_ridge(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    *,
    n_classes: int,
    weight: Float[Tensor, "resample n"],
    tol: float = 0.0,
) -> LinearFit:
    """See `affectlens.probes.estimators.base.Fit`; ``tol`` plays no part, the solution is exact."""
    del tol
    check_rows(x, y, weight, n_classes)
    c = torch.as_tensor(penalties, dtype=torch.float32, device=x.device)
    c = c.expand(len(x), -1) if c.ndim == 1 else c
    target = 2 * torch.nn.functional.one_hot(y.to(x.device), n_classes).float() - 1
    fits = [
        _solve(x[:, used].float(), target[used], row[used].float(), c)
        for row in weight.to(x.device)
        for used in [row > 0]
    ]
    weights, bias = (torch.stack(parts, dim=1) for parts in zip(*fits, strict=True))
    converged = torch.ones(weights.shape[:3], dtype=torch.bool, device=x.device)
    return LinearFit(weights, bias, converged)


def _solve(
    x: Float[Tensor, "site n d"],
    target: Float[Tensor, "n class"],
    weight: Float[Tensor, " n"],
    c: Float[Tensor, "site penalty"],
) -> tuple[Float[Tensor, "site penalty class d"], Float[Tensor, "site penalty class"]]:
    """One resample at all sites."""
    rows, mean, scale = standardised(x, weight)
    basis, energy = principal_axes(rows, weight.expand(len(x), -1))
    middle = (target * weight[:, None]).sum(0) / weight.sum()
    z = rows @ basis
    moment = z.mT @ ((target - middle) * weight[:, None])  # [site, r, class]
    solved = moment[:, None] / (energy[:, None] + 1 / c[..., None])[..., None]
    weights = (basis[:, None] @ solved).mT / scale[:, None]
    bias = middle - (weights @ mean[:, None].mT)[..., 0]
    return (
        weights - weights.mean(-2, keepdim=True),
        bias - bias.mean(-1, keepdim=True),
    )


RIDGE = ProbeKind("ridge", "least squares on +1 and -1 with an L2 penalty, exact", fit_ridge)
