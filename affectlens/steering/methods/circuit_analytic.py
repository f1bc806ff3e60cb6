"""The circuit with its own differences."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.units import ANALYTIC, analytic

CIRCUIT_ANALYTIC = Method(
    "circuit_analytic",
    "Differences of group means at the circuit's units",
    "a + s·Δ at inputs of W_down and W_O, units of the circuit alone",
    "differences of group means",
    "Wang et al. 2025 (arXiv 2510.11328)",
    "one pass over the texts, influence on some prompts",
    "to see what the units alone do, untrained",
    analytic,
    "circuit",
    strengths=ANALYTIC,
)
