"""Directions refined by likelihood."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import REFINED, likely

LIKELIHOOD = Method(
    "likelihood",
    "Residual vectors trained on the likelihood of replies in the emotion",
    "h + s·v, v = argmax log p(reply in e | prompt, v)",
    "the trained vector",
    "after Cao et al. 2024 (arXiv 2406.00045), without preferences",
    "a descent of some steps for all emotions at once",
    "a small model, a minute to spare",
    likely,
    "residual",
    strengths=REFINED,
)
