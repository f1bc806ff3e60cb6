"""Units: single neurons and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError

KINDS: tuple[str, ...] = ("heads", "neurons")


class Unit(NamedTuple):
    """One neuron or head, and its mean contribution to its layer's direction."""

    layer: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    score: float


def choose(
    ranking: Float[Tensor, "emotion layer unit"],
    counts: Int[Tensor, "emotion layer"],
    emotions: Sequence[str],
    scores: Float[Tensor, "emotion layer unit"] | None = None,
) -> dict[str, tuple[Unit, ...]]:
    """The highest of every sublayer, as many as it was given; equal ones by index.

    Args:
        ranking: What to rank by.
        counts: How many of each sublayer.
        emotions: Names of the first axis.
        scores: What to write down as the units' scores; default: the ranking.
    """
    scores = ranking if scores is None else scores
    order = ranking.sort(dim=-1, descending=True, stable=True).indices
    chosen: dict[str, tuple[Unit, ...]] = {}
    for e, emotion in enumerate(emotions):
        chosen[emotion] = tuple(
            Unit(layer, int(index), float(scores[e, layer, index]))
            for layer, count in enumerate(counts[e].tolist())
            for index in order[e, layer, :count]
        )
    return chosen


def read_units(
    rows: Int[Tensor, "unit 2"], scores: Float[Tensor, "layer unit"]
) -> tuple[Unit, ...]:
    """Units from rows of (layer, index).

    Raises:
        DataError: If one does not exist.
    """
    if rows.numel() and bool((rows < 0).any() | (rows >= torch.tensor(scores.shape)).any()):
        raise DataError("a unit that the model does not have")
    return tuple(Unit(layer, i, float(scores[layer, i])) for layer, i in rows.tolist())
