"""Whitened difference of means."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Weights
from affectlens.geometry.estimators.means import class_centred, dosed


def _lda(rows: Rows, weight: Weights) -> Displacements:
    """Whitened centroids, ``S^-1 c[e]``: S is the covariance within emotions, shrunk (Ledoit-Wolf).

    Groups, where complete, are centred first, so that content is not counted as noise.
    """
    x = rows.x
    if rows.grid is not None:
        x = x - rows.grid.mean(1)[rows.group]
    centred = class_centred(rows, weight)
    axes = list[Tensor]()
    for c, w in zip(centred, weight, strict=True):
        used = w[rows.group].clone()
        member = one_hot(rows.emotion, rows.n_emotions).to(x.dtype) * used[:, None]
        means = member.T @ x / member.sum(0).clamp_min(1)[:, None]
        residual = x - means[rows.emotion]
        scale = (used @ residual.square() / used.sum()).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        covariance = shrunk_covariance(residual / scale, used)
        axes.append(torch.linalg.solve(covariance, (c / scale).T).T / scale)
    return dosed(torch.stack(axes), centred)


def shrunk_covariance(x: Float[Tensor, "n d"], weight: Float[Tensor, " n"]) -> Float[Tensor, "d d"]:
    """Covariance of centred rows, shrunk to a multiple of the identity (Ledoit and Wolf 2004)."""
    n, d = weight.sum(), x.shape[1]
    covariance = (x * weight[:, None]).T @ x / n
    mean = covariance.trace() / d
    square = covariance.square().sum()
    distance = square - d * mean.square()
    noise = ((weight * x.square().sum(1).square()).sum() / n - square) / n
    shrinkage = (noise / distance.clamp_min(1e-30)).clamp(0, 1)
    identity = torch.eye(d, dtype=x.dtype, device=x.device)
    # Never quite singular, even where two features are copies of each other.
    return (1 - shrinkage) * covariance + (shrinkage + 1e-6) * mean * identity


LDA = Estimator(
    "lda",
    "whitened difference of means, shrunk covariance",
    _lda,
    grouped=False,
    neutral=False,
)
