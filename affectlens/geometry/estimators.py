"""Estimators of emotion directions, behind one interface.

Each takes the rows of one site and weights of their groups, many weightings at once (all groups,
halves, bootstraps), and gives one displacement per emotion: its direction is the estimate, its
length the natural dose, that is how far the emotion moves the residual along it.

Those that are linear in the rows can do without them: the weighted sum of each emotion's rows is
enough (`Sums`), and sums can be added up while rows stream by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from affectlens.geometry.logistic import fit_logistic

PROBE_C = 0.01  # scikit-learn's C of the estimator "probe", after standardisation


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one site that have an emotion, in float32.

    Attributes:
        x: Activations.
        emotion: Index of the emotion of each row.
        group: Index of the group of each row.
        grid: The same activations by group and emotion; None if groups are incomplete.
        neutral: Activations of each group under the neutral tone, if all groups have it.
    """

    x: Float[Tensor, "n d"]
    emotion: Int[Tensor, " n"]
    group: Int[Tensor, " n"]
    grid: Float[Tensor, "group emotion d"] | None
    neutral: Float[Tensor, "group d"] | None

    @property
    def n_emotions(self) -> int:
        """How many emotions."""
        return int(self.emotion.max()) + 1

    def complete(self) -> Float[Tensor, "group emotion d"]:
        """The grid, where an estimator has made sure that there is one."""
        assert self.grid is not None
        return self.grid


Weights = Float[Tensor, "resample group"]
Displacements = Float[Tensor, "resample emotion d"]


@dataclass(frozen=True, eq=False)
class Sums:
    """Rows of one site added up: ``sum_i w[r, group i] x[i]`` over the rows of each tone.

    Attributes:
        total: The sums of the emotions, in float64 (contents cancel only between them).
        neutral: The sum of the neutral rows, if all groups have one.
        count: ``sum_i w[r, group i]`` over the rows of each emotion.
        groups: Sum of the weights of all groups.
    """

    total: Float[Tensor, "resample emotion d"]
    neutral: Float[Tensor, "resample d"] | None
    count: Float[Tensor, "resample emotion"]
    groups: Float[Tensor, " resample"]


@dataclass(frozen=True)
class Estimator:
    """A way to estimate directions.

    Attributes:
        name: As asked for.
        estimate: The function.
        grouped: Whether every group must have every emotion.
        neutral: Whether every group must have the neutral tone.
        about: One line.
        from_sums: The same from sums alone; None if it needs every row.
    """

    name: str
    estimate: Callable[[Rows, Weights], Displacements]
    grouped: bool
    neutral: bool
    about: str
    from_sums: Callable[[Sums], Displacements] | None = None


def group_centred(x: Float[Tensor, "group emotion d"]) -> Float[Tensor, "emotion d"]:
    """Centred means, ``c[e] = mean_g (x[g,e] - mean_e' x[g,e'])``, minus their mean over emotions.

    They sum to zero over the emotions.
    """
    return _centred(x, torch.ones(1, len(x), dtype=x.dtype, device=x.device))[0]


def _group_centred(rows: Rows, weight: Weights) -> Displacements:
    return _centred(rows.complete(), weight)


def _centred(x: Float[Tensor, "group emotion d"], weight: Weights) -> Displacements:
    means = _over_groups(x - x.mean(1, keepdim=True), weight)
    return means - means.mean(1, keepdim=True)


def _summed_group_centred(sums: Sums) -> Displacements:
    """Over complete groups the mean of differences is the difference of means."""
    means = sums.total / sums.groups[:, None, None]
    return means - means.mean(1, keepdim=True)


def _diff_neutral(rows: Rows, weight: Weights) -> Displacements:
    assert rows.neutral is not None
    return _over_groups(rows.complete() - rows.neutral[:, None], weight)


def _summed_diff_neutral(sums: Sums) -> Displacements:
    assert sums.neutral is not None
    return (sums.total - sums.neutral[:, None]) / sums.groups[:, None, None]


def _over_groups(x: Float[Tensor, "group emotion d"], weight: Weights) -> Displacements:
    share = weight / weight.sum(1, keepdim=True)
    return (share @ x.flatten(1)).unflatten(1, x.shape[1:])


def _diff_rest(rows: Rows, weight: Weights) -> Displacements:
    return _rest_difference(*_class_sums(rows, weight))


def _summed_diff_rest(sums: Sums) -> Displacements:
    return _rest_difference(sums.total, sums.count[..., None])


def _rest_difference(
    sums: Displacements, counts: Float[Tensor, "resample emotion 1"]
) -> Displacements:
    rest = (sums.sum(1, keepdim=True) - sums) / (counts.sum(1, keepdim=True) - counts).clamp_min(1)
    return sums / counts.clamp_min(1) - rest


def _class_sums(
    rows: Rows, weight: Weights
) -> tuple[Displacements, Float[Tensor, "resample emotion 1"]]:
    row_weight = weight[:, rows.group]  # [resample, n]
    member = one_hot(rows.emotion, rows.n_emotions).to(rows.x.dtype)  # [n, emotion]
    chosen = row_weight[:, None] * member.T  # [resample, emotion, n]
    return chosen @ rows.x, chosen.sum(-1, keepdim=True)


def _class_centred(rows: Rows, weight: Weights) -> Displacements:
    """Class means minus their unweighted mean: the displacement that doses are measured by."""
    if rows.grid is not None:
        return _group_centred(rows, weight)
    sums, counts = _class_sums(rows, weight)
    means = sums / counts.clamp_min(1)
    return means - means.mean(1, keepdim=True)


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
    return _dosed(axis[..., 0, :], _group_centred(rows, weight), signed=True)


def _lda(rows: Rows, weight: Weights) -> Displacements:
    """Whitened centroids, ``S^-1 c[e]``: S is the covariance within emotions, shrunk (Ledoit-Wolf).

    Groups, where complete, are centred first, so that content is not counted as noise.
    """
    x = rows.x
    if rows.grid is not None:
        x = x - rows.grid.mean(1)[rows.group]
    centred = _class_centred(rows, weight)
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
    return _dosed(torch.stack(axes), centred)


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


def _probe(rows: Rows, weight: Weights) -> Displacements:
    fit = fit_logistic(
        rows.x[None],
        rows.emotion,
        (PROBE_C,),
        n_classes=rows.n_emotions,
        weight=weight[:, rows.group],
    )
    return _dosed(fit.weights[0, :, 0], _class_centred(rows, weight))


def _dosed(axis: Displacements, centred: Displacements, *, signed: bool = False) -> Displacements:
    """Give axes the length of the centred means along them (0 if they point the other way)."""
    unit = normalize(axis, dim=-1)
    dose = (unit * centred).sum(-1, keepdim=True)
    if signed:  # the axis has no sign of its own
        return unit * dose
    return unit * dose.clamp_min(1e-6 * centred.norm(dim=-1, keepdim=True))


ESTIMATORS: Mapping[str, Estimator] = {
    e.name: e
    for e in (
        Estimator(
            "group_centred",
            _group_centred,
            True,
            False,
            "mean difference to the group's mean",
            _summed_group_centred,
        ),
        Estimator(
            "diff_neutral",
            _diff_neutral,
            True,
            True,
            "mean difference to the neutral tone",
            _summed_diff_neutral,
        ),
        Estimator(
            "diff_rest",
            _diff_rest,
            False,
            False,
            "mean difference to the other emotions",
            _summed_diff_rest,
        ),
        Estimator("pca", _pca, True, False, "first principal axis of the pairs (RepE)"),
        Estimator("lda", _lda, False, False, "whitened difference of means, shrunk covariance"),
        Estimator("probe", _probe, False, False, "weight of a logistic probe"),
    )
}
