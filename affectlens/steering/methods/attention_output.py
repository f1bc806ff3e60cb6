"""Mean differences added to what attention writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.units import require_heads, with_heads

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

NAME = "attention_output"


def fold(found: Material) -> SteeringPack:
    """All heads of the steered blocks with their differences of group means.

    ``W_O`` is linear, so this is the difference of means of attention's output itself.
    """
    from affectlens.steering.pack import SteeringPack

    circuit = found.circuit(refined=False)
    require_heads(circuit, NAME)
    every = [(n, h) for n in found.layers for h in range(int(circuit.sizes[n, 0]))]
    heads = dict.fromkeys(circuit.emotions, every)
    chosen = with_heads(circuit, heads, how="group_mean:attention_output")
    return SteeringPack.from_circuit(chosen, found.model)


ATTENTION_OUTPUT = Method(
    NAME,
    "Mean difference of attention's output, at the steered blocks",
    "o + s·c, c = mean_g (o[g,e] − mean_e' o[g,e']), o = attention's output",
    "natural dose |c|",
    "attention steering, as in ITI without a choice of heads",
    "one pass over the texts",
    "the residual stream carries too much besides",
    fold,
    "circuit",
    strengths=(2.0, 5.0, 12.0),
)
