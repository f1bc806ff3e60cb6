"""Sets of units: a circuit's highest, and random ones of the same layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Places:
    """Where the units of one kind lie.

    Attributes:
        own: The circuit's.
        free: All others that a layer has.
    """

    own: Bool[Tensor, "layer unit"]
    free: Bool[Tensor, "layer unit"]

    @classmethod
    def of(cls, circuit: Circuit, emotion: str, kind: str) -> Places:
        """Of an emotion's units."""
        size = sizes_of(circuit)[kind]
        there = torch.arange(size) < circuit.sizes[:, KINDS.index(kind), None]
        own = mask_of(circuit.n_layers, size, circuit.units(emotion, kind))
        return cls(own & there, there & ~own)

    def drawn(
        self, counts: Sequence[int], generator: torch.Generator
    ) -> Bool[Tensor, "layer unit"]:
        """So many random units of each layer, none of them the circuit's as far as that goes.

        A circuit may have most heads of a layer, or all. Where those outside do not suffice they
        are all taken and the rest is drawn from the circuit's own: random sets then share units
        with it, which makes it harder, never easier, to tell from them.

        Raises:
            DataError: If a layer has fewer units altogether.
        """
        mask = torch.zeros_like(self.free)
        for layer, count in enumerate(counts):
            free, own = (part[layer].nonzero().flatten() for part in (self.free, self.own))
            if len(free) + len(own) < count:
                raise DataError(
                    f"Layer {layer} has only {len(free) + len(own)} units, too few to draw "
                    f"{count} random ones; ask for fewer units."
                )
            order = [part[torch.randperm(len(part), generator=generator)] for part in (free, own)]
            mask[layer, torch.cat(order)[:count]] = True
        return mask


def matched(
    sets: Bool[Tensor, "count layer unit"], places: Places, draws: int, seed: int
) -> Bool[Tensor, "count draw layer unit"]:
    """For each set so many random ones with as many units in every layer; see `Places.drawn`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack(
        [
            torch.stack([places.drawn(own.sum(1).tolist(), generator) for _ in range(draws)])
            for own in sets
        ]
    )
