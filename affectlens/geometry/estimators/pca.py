"""First principal axis of pairs."""

from __future__ import annotations

import torch

from affectlens.geometry.estimators.base import Displacements, Estimator, Rows, Weights
from affectlens.geometry.estimators.means import centred_rows, dosed


def _pca(rows: Rows, weight: Weights) -> Displacements:
    """First principal axis of the pairs (emotion, rest of its group), both orders of each pair.

    With both orders the pairs have mean zero, so the axis is that of the second moment.
    """
    x = rows.complete()
    n_emotions = x.shape[1]
    pairs = (x - x.mean(1, keepdim=True)) * (n_emotions / (n_emotions - 1))
    pairs = pairs.transpose(0, 1)  # [emotion, group, d]
    # Of the weighted pairs sqrt(w) P, the axis is P' sqrt(w) u with u from the groups' Gram matrix.
    gram = pairs @ pairs.mT
    root = weight.sqrt()[:, None]  # [resample, 1, group]
    _, vectors = torch.linalg.eigh(root[..., None] * gram * root[..., None, :])
    axis = (vectors[..., -1] * root)[..., None, :] @ pairs  # [resample, emotion, 1, d]
    return dosed(axis[..., 0, :], centred_rows(rows, weight), signed=True)


PCA = Estimator(
    "pca",
    "first principal axis of the pairs (RepE)",
    _pca,
    grouped=True,
    neutral=False,
)
