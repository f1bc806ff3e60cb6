"""The circuit refined by reference-free preference."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import REFINED
from affectlens.steering.methods.units import preferred

CIRCUIT_REPS = Method(
    "circuit_reps",
    "Values at the circuit's units trained by preference in both signs (RePS)",
    "a + s·Δ, Δ prefers the emotion's reply when added, another's when nulled",
    "the trained values",
    "the circuit, with the objective of Wu et al. 2025 (arXiv 2505.20809)",
    "the circuit and a descent of three passes a step",
    "the emotion has to be taken away as well as added",
    preferred,
    "circuit",
    strengths=REFINED,
)
