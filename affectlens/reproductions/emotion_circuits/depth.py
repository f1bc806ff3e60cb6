"""Along depth: how directions turn, and where emotions part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Neighbours:
    """Cosines between an emotion's directions at different depths, one value per emotion.

    Attributes:
        same_layer: Attention's site to the MLP's of the same layer, mean over layers.
        next_layer: The MLP's to attention's of the next layer.
        off_diagonal: All pairs of positions.
        band, band_min: All pairs within the reference band: mean, and smallest.
    """

    same_layer: Float[Tensor, " emotion"]
    next_layer: Float[Tensor, " emotion"]
    off_diagonal: Float[Tensor, " emotion"]
    band: Float[Tensor, " emotion"]
    band_min: Float[Tensor, " emotion"]


def neighbours(
    vectors: Float[Tensor, "emotion layer 2 d_model"], band: tuple[int, int]
) -> Neighbours:
    """Compare unit directions at all 2·L positions, (attention, MLP) on the third axis.

    Source: arXiv 2510.11328 §6, script 06/1.
    """
    along = vectors.flatten(1, 2)
    cosines = along @ along.transpose(1, 2)
    n = cosines.shape[1]
    steps = cosines.diagonal(1, 1, 2)
    apart = ~torch.eye(n, dtype=torch.bool)
    inside = cosines[:, 2 * band[0] : 2 * band[1] + 2, 2 * band[0] : 2 * band[1] + 2]
    pairs = inside[:, ~torch.eye(inside.shape[1], dtype=torch.bool)]
    return Neighbours(
        steps[:, 0::2].mean(1),
        steps[:, 1::2].mean(1) if n > 2 else steps[:, 0],
        cosines[:, apart].mean(1),
        pairs.mean(1),
        pairs.min(1).values,
    )


def silhouettes(
    directions: Float[Tensor, "site emotion d_model"],
    rows: Sequence[Float[Tensor, "group emotion d_model"]],
    *,
    draws: int,
    seed: int,
) -> tuple[Float[Floats, " site"], Float[Floats, "draw site"]]:
    """How well unseen texts fall into clusters by emotion, at each site.

    Each text's activation, less the mean of its group, is read in the span of the six directions,
    which were fitted on other texts; the silhouette compares distances within and between emotions.
    The control permutes the emotions within every group.

    Args:
        directions: Of each site.
        rows: Complete groups of unseen texts, of each site.
        draws: Permutations.
        seed: Of the permutations.
    """
    from sklearn.metrics import silhouette_score

    n_groups, n_emotions = rows[0].shape[:2]
    labels = np.tile(np.arange(n_emotions), n_groups)
    generator = np.random.default_rng(seed)
    shuffled = [
        np.concatenate([generator.permutation(n_emotions) for _ in range(n_groups)])
        for _ in range(draws)
    ]
    found, chance = list[float](), list[list[float]]()
    for vectors, x in zip(directions, rows, strict=True):
        _, sizes, basis = torch.linalg.svd(vectors.double(), full_matrices=False)
        basis = basis[sizes > 1e-6 * sizes.max()]
        inside = ((x - x.mean(1, keepdim=True)).double() @ basis.T).flatten(0, 1).numpy()
        found.append(float(silhouette_score(inside, labels)))
        chance.append([float(silhouette_score(inside, order)) for order in shuffled])
    return np.array(found), np.array(chance).T


def first_above(values: Sequence[float], limits: Sequence[float]) -> int | None:
    """The first place from which on all values lie above their limits; None if there is none."""
    above = [value > limit for value, limit in zip(values, limits, strict=True)]
    if not above or not above[-1]:
        return None
    below = [i for i, high in enumerate(above) if not high]
    return below[-1] + 1 if below else 0
