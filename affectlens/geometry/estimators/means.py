"""Means of groups and of classes: what several estimators are made of."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from affectlens.geometry.estimators.base import Displacements, Rows, Weights


def group_centred(x: Float[Tensor, "group emotion d"]) -> Float[Tensor, "emotion d"]:
    """Centred means, ``c[e] = mean_g (x[g,e] - mean_e' x[g,e'])``, minus their mean over emotions.

    They sum to zero over the emotions.
    """
    return centred(x, torch.ones(1, len(x), dtype=x.dtype, device=x.device))[0]


def centred_rows(rows: Rows, weight: Weights) -> Displacements:
    """`centred` of complete groups."""
    return centred(rows.complete(), weight)


def centred(x: Float[Tensor, "group emotion d"], weight: Weights) -> Displacements:
    """`group_centred` under each weighting of the groups."""
    means = over_groups(x - x.mean(1, keepdim=True), weight)
    return means - means.mean(1, keepdim=True)


def over_groups(x: Float[Tensor, "group emotion d"], weight: Weights) -> Displacements:
    """Weighted means over groups."""
    share = weight / weight.sum(1, keepdim=True)
    return (share @ x.flatten(1)).unflatten(1, x.shape[1:])


def class_sums(
    rows: Rows, weight: Weights
) -> tuple[Displacements, Float[Tensor, "resample emotion 1"]]:
    """Weighted sums of the rows of each emotion, and the sums of their weights."""
    row_weight = weight[:, rows.group]  # [resample, n]
    member = one_hot(rows.emotion, rows.n_emotions).to(rows.x.dtype)  # [n, emotion]
    chosen = row_weight[:, None] * member.T  # [resample, emotion, n]
    return chosen @ rows.x, chosen.sum(-1, keepdim=True)


def class_centred(rows: Rows, weight: Weights) -> Displacements:
    """Class means minus their unweighted mean: the displacement that doses are measured by."""
    if rows.grid is not None:
        return centred_rows(rows, weight)
    sums, counts = class_sums(rows, weight)
    means = sums / counts.clamp_min(1)
    return means - means.mean(1, keepdim=True)


def dosed(axis: Displacements, centred: Displacements, *, signed: bool = False) -> Displacements:
    """Give axes the length of the centred means along them (0 if they point the other way)."""
    unit = normalize(axis, dim=-1)
    dose = (unit * centred).sum(-1, keepdim=True)
    if signed:  # the axis has no sign of its own
        return unit * dose
    return unit * dose.clamp_min(1e-6 * centred.norm(dim=-1, keepdim=True))
