"""Ridge regression for several targets and penalties at once, and correlations of resamples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.geometry.linear_fit import standardised


def ridge(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n k"], penalties: Sequence[float]
) -> tuple[Float[Tensor, "penalty k d"], Float[Tensor, "penalty k"]]:
    """Least squares with a penalty on the weights of standardised columns, all at once.

    ``min Σ (y - w·z - b)² + n λ |w|²`` with ``z`` standardised; the weights come back in the units
    of ``x``, as scikit-learn's ``make_pipeline(StandardScaler(), Ridge(alpha=n * λ))`` has them.
    """
    z, mean, scale = standardised(x, torch.ones(len(x), dtype=x.dtype))
    target = y.mean(0)
    values, axes = torch.linalg.eigh(z.T @ z)
    along = axes.T @ z.T @ (y - target)  # [d, k]
    shrunk = 1 / (values + len(x) * torch.tensor(list(penalties), dtype=x.dtype)[:, None])
    weights = torch.einsum("de,pe,ek->pkd", axes, shrunk, along) / scale[0]
    return weights, target - weights @ mean[0]


def weighted_pearson(
    a: Float[Tensor, " n"], b: Float[Tensor, " n"], weight: Float[Tensor, "draw n"]
) -> Float[Tensor, " draw"]:
    """Pearson correlation with each weighting of the rows; NaN where one side is constant."""
    total = weight.sum(1)
    a, b = a - a.mean(), b - b.mean()  # for precision
    mean_a, mean_b = weight @ a / total, weight @ b / total
    covariance = weight @ (a * b) / total - mean_a * mean_b
    spread = (weight @ a.square() / total - mean_a.square()) * (
        weight @ b.square() / total - mean_b.square()
    )
    return torch.where(spread > 1e-18, covariance / spread.clamp_min(1e-18).sqrt(), torch.nan)
