"""Directions refined by reference-free preference."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import REFINED, preferred

REPS = Method(
    "reps",
    "Residual vectors trained by preference in both signs (RePS)",
    "h + s·v, v prefers the emotion's reply when added, another's when nulled",
    "the trained vector",
    "Wu et al. 2025 (arXiv 2505.20809)",
    "a descent of three passes a step",
    "the emotion has to be taken away as well as added",
    preferred,
    "residual",
    strengths=REFINED,
)
