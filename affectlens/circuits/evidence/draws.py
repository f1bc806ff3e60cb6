"""Sets of units: a circuit's highest, and random ones of the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from affectlens.circuits.units import KINDS, Unit
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit


def mask_of(n_layers: int, size: int, units: Sequence[Unit]) -> Bool[Tensor, "layer unit"]:
    """True at the units."""
    mask = torch.zeros(n_layers, size, dtype=torch.bool)
    mask[[u.layer for u in units], [u.index for u in units]] = True
    return mask


def sizes_of(circuit: Circuit) -> dict[str, int]:
    """Units of each kind in the widest layer."""
    return {"heads": circuit.n_heads, "neurons": circuit.neuron_scores.shape[-1]}


def highest(
    circuit: Circuit, emotion: str, kind: str, counts: Sequence[int]
) -> Bool[Tensor, "count layer unit"]:
    """The units of highest score, for each count.

    Raises:
        DataError: If the circuit has fewer.
    """
    ranked = circuit.ranked(emotion, kind)
    if len(ranked) < max(counts):
        raise DataError(
            f"The circuit has {len(ranked)} {kind} for {emotion}, not {max(counts)}; ask for "
            "fewer, or find a circuit with a larger budget."
        )
    size = sizes_of(circuit)[kind]
    return torch.stack([mask_of(circuit.n_layers, size, ranked[:count]) for count in counts])


def taken(circuit: Circuit, emotion: str, kind: str) -> Bool[Tensor, "layer unit"]:
    """Units that random sets may not have: the circuit's, and those that a layer lacks."""
    size = sizes_of(circuit)[kind]
    there = circuit.sizes[:, KINDS.index(kind)]
    own = mask_of(circuit.n_layers, size, circuit.units(emotion, kind))
    return own | (torch.arange(size) >= there[:, None])


def others(
    counts: Sequence[int], taken: Bool[Tensor, "layer unit"], generator: torch.Generator
) -> Bool[Tensor, "layer unit"]:
    """So many units of each layer, none of those taken.

    Raises:
        DataError: If a layer has too few.
    """
    mask = torch.zeros_like(taken)
    for layer, count in enumerate(counts):
        free = (~taken[layer]).nonzero().flatten()
        if len(free) < count:
            raise DataError(
                f"Layer {layer} has only {len(free)} units outside the circuit, too few to draw "
                f"{count} random ones; ask for fewer units."
            )
        mask[layer, free[torch.randperm(len(free), generator=generator)[:count]]] = True
    return mask


def matched(
    sets: Bool[Tensor, "count layer unit"],
    taken: Bool[Tensor, "layer unit"],
    draws: int,
    seed: int,
) -> Bool[Tensor, "count draw layer unit"]:
    """For each set so many random ones with as many units in every layer, none of those taken.

    Raises:
        DataError: If a layer has too few.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [
            torch.stack([others(own.sum(1).tolist(), taken, generator) for _ in range(draws)])
            for own in sets
        ]
    )
