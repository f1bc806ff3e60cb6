"""The circuit refined by likelihood."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import REFINED
from affectlens.steering.methods.units import likely

CIRCUIT = Method(
    "circuit",
    "Values at the circuit's units trained on likelihood",
    "a + s·Δ, Δ = argmax log p(reply in e | prompt, Δ), units of the circuit alone",
    "the trained values",
    "Wang et al. 2025, with the values trained",
    "the circuit and a descent for all emotions at once",
    "few units, each of which can be tested alone",
    likely,
    "circuit",
    strengths=REFINED,
)
