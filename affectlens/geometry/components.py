"""Principal components of emotion means: are they more than chance, and do they rise with norms?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.display import Displayed
from affectlens.core.emotions import DIMENSIONS, NEUTRAL, VAD
from affectlens.core.errors import DataError
from affectlens.core.permutations import orders
from affectlens.core.places import Site
from affectlens.core.statistics import times_drawn
from affectlens.geometry.displacements import make_estimation, neutral_basis

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class NormCorrelation:
    """How a component goes with a norm over the emotions.

    Attributes:
        component: Counted from 1.
        dimension: One of valence, arousal and dominance.
        r: Pearson correlation over the emotions whose norm is known; components have no sign of
            their own, and each is turned so that its largest correlation is positive.
        low, high: 95 % interval, bootstrapped over groups of texts: what another sample of contents
            would give for these emotions. It says nothing about other emotions; p does.
        p: Two-sided, by permuting the norms over the emotions: all orders up to 8 emotions, else
            5,000 random ones.
        emotions: How many emotions have a norm.
    """

    component: int
    dimension: str
    r: float
    low: float
    high: float
    p: float
    emotions: int


@dataclass(frozen=True, eq=False, repr=False)
class EmotionComponents(Displayed):
    """Principal components of the emotions' means at a site.

    Attributes:
        emotions: Along the axis ``emotion``.
        site: Where.
        points: Coordinates of the emotions, in the units of the activations.
        axes: Unit vectors.
        explained: Share of the variance of the means along each component.
        chance: The same with labels permuted within groups, mean over permutations.
        p: Share of permutations in which the component of that rank has at least its variance.
        norms: Correlations with norms.
        removed: Dimensions of the neutral subspace that were taken out first; 0 if none was.
    """

    emotions: tuple[str, ...]
    site: Site
    points: Float[Tensor, "emotion component"]
    axes: Float[Tensor, "component d_model"]
    explained: Float[Tensor, " component"]
    chance: Float[Tensor, " component"]
    p: Float[Tensor, " component"]
    norms: tuple[NormCorrelation, ...]
    removed: int = 0

    def brief(self) -> dict[str, object]:
        """Site, emotions, and the first component beside chance."""
        return {
            "site": self.site.hook_name,
            "emotions": len(self.emotions),
            "first": f"{float(self.explained[0]):.3f} (chance {float(self.chance[0]):.3f})",
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row per component: variance, chance, p, and the correlations."""
        rows = list[dict[str, object]]()
        for k in range(len(self.explained)):
            told = {n.dimension: n.r for n in self.norms if n.component == k + 1}
            rows.append(
                {
                    "component": k + 1,
                    "explained": float(self.explained[k]),
                    "chance": float(self.chance[k]),
                    "p": float(self.p[k]),
                    **told,
                }
            )
        return rows


def emotion_components(
    store: ActivationStore | Mapping[Site, Float[Tensor, "group emotion d"]],
    site: Site | str,
    *,
    emotions: Sequence[str] | None = None,
    norms: Mapping[str, tuple[float, float, float]] = VAD,
    clean: bool | ActivationStore = False,
    permutations: int = 1000,
    draws: int = 1000,
    seed: int = 0,
) -> EmotionComponents:
    """Principal component analysis of emotion means, held against chance and norms.

    The null of ``p``: emotions make no difference, so that the labels of a group's rows may be
    dealt anew (within the group, because content is shared there).

    Args:
        store: Complete groups, as `directions` takes them.
        site: Where.
        emotions: Which; default: all but the neutral tone.
        norms: Valence, arousal and dominance by emotion; those without any are left out.
        clean: Take out the neutral subspace first (see `directions`): of this store's neutral
            rows, or of another store's.
        permutations: Of labels, and of norms.
        draws: Bootstrap samples of groups.
        seed: Of both.

    Raises:
        DataError: If there are fewer than three emotions, or groups lack some.
    """
    made = make_estimation(store, emotions, "group_centred", None, site)
    if len(made.emotions) < 3:
        raise DataError("Components of emotion means need three emotions or more.")
    (place,) = made.sites
    assert made.grouping.grid is not None  # the estimator asked for complete groups
    rows = made.store.to_torch(place, made.position).double()
    grid = rows[made.grouping.grid]
    removed = 0
    if clean is not False:
        basis = _neutral(made.store, clean, place, made.position)
        grid, removed = grid - (grid @ basis) @ basis.T, basis.shape[1]
    grid = grid - grid.mean(1, keepdim=True)
    means = grid.mean(0)
    _, singular, axes = torch.linalg.svd(means, full_matrices=False)
    count = min(len(made.emotions) - 1, means.shape[1])
    axes, energy = axes[:count], singular[:count].square()
    shares = _permuted(grid, permutations, seed)[:, :count]
    found = (shares >= energy * (1 - 1e-9)).double().sum(0)  # ties by rounding count
    named = [i for i, e in enumerate(made.emotions) if e in norms]
    told = _against_norms(grid, axes, named, [norms[made.emotions[i]] for i in named], draws, seed)
    signs = torch.ones(count, dtype=axes.dtype)
    for k in range(count):
        own = [n.r for n in told if n.component == k + 1]
        if own and max(own, key=abs) < 0:
            signs[k] = -1
    turned = tuple(_turned(n, float(signs[n.component - 1])) for n in told)
    return EmotionComponents(
        emotions=made.emotions,
        site=place,
        points=(means @ axes.T * signs).float(),
        axes=(axes * signs[:, None]).float(),
        explained=(energy / energy.sum()).float(),
        chance=(shares / shares.sum(1, keepdim=True)).mean(0).float(),
        p=((1 + found) / (1 + permutations)).float(),
        norms=turned,
        removed=removed,
    )


def _neutral(
    store: ActivationStore, clean: bool | ActivationStore, site: Site, position: str
) -> Float[Tensor, "d k"]:
    if isinstance(clean, ActivationStore):
        return neutral_basis(clean.to_torch(site).double())
    labels = store.column("emotion", position)
    kept = torch.tensor([label == NEUTRAL for label in labels])
    return neutral_basis(store.to_torch(site, position)[kept].double())


def _permuted(
    grid: Float[Tensor, "group emotion d"], permutations: int, seed: int
) -> Float[Tensor, "permutation component"]:
    """Variance of the components of means when each group's labels are dealt anew."""
    generator = torch.Generator().manual_seed(seed)
    groups, emotions, _ = grid.shape
    flat = grid.flatten(0, 1)
    start = torch.arange(groups)[:, None] * emotions
    found = list[Tensor]()
    for _ in range(permutations):
        order = torch.rand(groups, emotions, generator=generator).argsort(1) + start
        means = flat[order].mean(0)
        found.append(torch.linalg.eigvalsh(means @ means.T).flip(0).clamp_min(0))
    return torch.stack(found)


def _against_norms(
    grid: Float[Tensor, "group emotion d"],
    axes: Float[Tensor, "component d"],
    named: Sequence[int],
    norms: Sequence[tuple[float, float, float]],
    draws: int,
    seed: int,
) -> list[NormCorrelation]:
    """Correlations of every component with every norm; none for fewer than three emotions."""
    if len(named) < 3:
        return []
    told = np.asarray(norms, dtype=np.float64)
    points = (grid @ axes.T)[:, list(named)].numpy()  # [group, emotion, component]
    weights = times_drawn(len(grid), draws, seed) / len(grid)
    drawn = np.einsum("bg,gek->bek", weights, points)
    found = list[NormCorrelation]()
    for k in range(points.shape[2]):
        for d, dimension in enumerate(DIMENSIONS):
            scores = points[..., k].mean(0)
            r = correlation(scores, told[:, d])
            sampled = _correlations(drawn[..., k], told[:, d])
            ends = np.nanquantile(sampled, [0.025, 0.975]) if len(grid) > 1 else [math.nan] * 2
            p = permutation_p(scores, told[:, d], seed=seed)
            low, high = float(ends[0]), float(ends[1])
            found.append(NormCorrelation(k + 1, dimension, r, low, high, p, len(named)))
    return found


def _turned(found: NormCorrelation, sign: float) -> NormCorrelation:
    if sign > 0:
        return found
    return replace(found, r=-found.r, low=-found.high, high=-found.low)


def correlation(x: Float[Floats, " n"], y: Float[Floats, " n"]) -> float:
    """Pearson correlation; NaN if either is constant."""
    return float(_correlations(x[None], y)[0])


def _correlations(rows: Float[Floats, "b n"], y: Float[Floats, " n"]) -> Float[Floats, " b"]:
    x = rows - rows.mean(1, keepdims=True)
    z = y - y.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x @ z) / (np.linalg.norm(x, axis=1) * np.linalg.norm(z))


def permutation_p(
    x: Float[Floats, " n"], y: Float[Floats, " n"], *, permutations: int = 5000, seed: int = 0
) -> float:
    """Two-sided p of a correlation by dealing the values of ``y`` anew.

    All orders are tried up to 8 values, which makes the test exact; else so many random ones, the
    order as it is counted in.
    """
    z = y[orders(len(y), permutations, seed, exact_to=8)] - y.mean()
    centred = x - x.mean()
    scale = np.linalg.norm(centred) * np.linalg.norm(y - y.mean())
    if scale == 0:
        return math.nan
    found = np.abs(z @ centred) / scale
    return float((found >= found[0] - 1e-12).mean())  # the first order is the one there is
