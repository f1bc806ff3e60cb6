"""Packs of the circuit mode: units of a circuit, other heads, all heads of some blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from affectlens.circuits import Circuit
    from affectlens.steering.methods.base import Material
    from affectlens.steering.pack import SteeringPack

ANALYTIC = (5.0, 9.0, 16.0)
"""Strengths to try first for units' own differences, which are small beside what a descent
makes."""


def analytic(found: Material) -> SteeringPack:
    """The circuit with its differences of group means."""
    return _folded(found, found.circuit(refined=False))


def likely(found: Material) -> SteeringPack:
    """The circuit refined by likelihood."""
    return _folded(found, found.circuit(refined=True))


def preferred(found: Material) -> SteeringPack:
    """The circuit refined by RePS, from the same start and in as many steps."""
    from affectlens.steering.refine import refine_circuit

    refined = refine_circuit(
        found.model,
        found.circuit(refined=False),
        found.corpora,
        settings=replace(found.descent("circuit"), objective="reps"),
    )
    return _folded(found, refined)


def random_units(found: Material) -> SteeringPack:
    """As many random units, refined by likelihood like the circuit."""
    return _folded(found, found.random_units())


def _folded(found: Material, circuit: Circuit) -> SteeringPack:
    from affectlens.steering.pack import SteeringPack

    return SteeringPack.from_circuit(circuit, found.model)


def with_heads(
    circuit: Circuit,
    heads: Mapping[str, Sequence[tuple[int, int]]],
    delta: Float[Tensor, "emotion layer width"] | None = None,
    *,
    how: str,
) -> Circuit:
    """A circuit of other heads and no neurons.

    Args:
        circuit: Gives names, sizes and scores; not refined, with differences for all its heads.
        heads: Emotion to (layer, head), each once.
        delta: What to add at the input of ``W_O``; None: the heads' differences of group means.
        how: Where heads and values are from; goes into the provenance.

    Raises:
        DataError: If the model has no such head.
    """
    from affectlens.circuits.units import Unit

    chosen: dict[str, tuple[Unit, ...]] = {}
    counts = torch.zeros_like(circuit.allocation)
    for e, emotion in enumerate(circuit.emotions):
        for layer, head in heads[emotion]:
            if not (0 <= layer < circuit.n_layers and 0 <= head < int(circuit.sizes[layer, 0])):
                raise DataError(f"The model has no head {head} in block {layer}.")
            counts[e, layer, 0] += 1
        chosen[emotion] = tuple(
            Unit(layer, head, float(circuit.head_scores[e, layer, head]))
            for layer, head in sorted(heads[emotion])
        )
    bare = replace(circuit.only("heads"), heads=chosen, allocation=counts)
    return bare.with_delta(None, delta, how=how)


def require_heads(circuit: Circuit, method: str) -> None:
    """Refuse a model without attention heads.

    Raises:
        DataError: Naming what to do.
    """
    if not int(circuit.sizes[:, 0].sum()):
        raise DataError(
            f"The method {method} steers attention heads, of which this model has none; leave it "
            "out (--methods)."
        )
