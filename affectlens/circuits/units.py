"""Units: single neurons and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import Anatomy

KINDS: tuple[str, ...] = ("heads", "neurons")


class Unit(NamedTuple):
    """One neuron or head, and its mean contribution to its layer's direction."""

    layer: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]
    score: float


def unit_sizes(anatomy: Anatomy) -> Int[Tensor, "layer 2"]:
    """Heads and neurons that each layer has, those of all experts among them; 0 where none."""
    return torch.tensor([[part.n_heads, part.n_neurons] for part in anatomy.blocks])


def routed_sizes(anatomy: Anatomy) -> Int[Tensor, " layer"]:
    """How many of each layer's neurons, its first, are of experts that a router chooses."""
    experts = (part.experts for part in anatomy.blocks)
    return torch.tensor([0 if one is None else one.n_routed for one in experts])


def even_sizes(n_layers: int, n_heads: int, d_mlp: int) -> Int[Tensor, "layer 2"]:
    """The same of a model whose layers are alike."""
    return torch.tensor([[n_heads, d_mlp]] * n_layers)


def there_only(
    values: Float[Tensor, "emotion layer unit"], sizes: Int[Tensor, " layer"]
) -> Float[Tensor, "emotion layer unit"]:
    """The values with minus infinity where a layer has no such unit."""
    index = torch.arange(values.shape[-1], device=values.device)
    return values.masked_fill(index >= sizes.to(values.device)[:, None], -torch.inf)


def choose(
    ranking: Float[Tensor, "emotion layer unit"],
    counts: Int[Tensor, "emotion layer"],
    emotions: Sequence[str],
    scores: Float[Tensor, "emotion layer unit"] | None = None,
) -> dict[str, tuple[Unit, ...]]:
    """The highest of every sublayer, as many as it was given; equal ones by index.

    Args:
        ranking: What to rank by; minus infinity where there is no unit (`there_only`).
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
    rows: Int[Tensor, "unit 2"],
    scores: Float[Tensor, "layer unit"],
    sizes: Int[Tensor, " layer"],
) -> tuple[Unit, ...]:
    """Units from rows of (layer, index).

    Raises:
        DataError: If one does not exist.
    """
    outside = (rows < 0).any() | (rows[:, 0] >= len(sizes)).any()
    if rows.numel() and bool(outside or (rows[:, 1] >= sizes[rows[:, 0].long()]).any()):
        raise DataError("a unit that the model does not have")
    return tuple(Unit(layer, i, float(scores[layer, i])) for layer, i in rows.tolist())
