"""What tells the other emotions apart erased."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import ESTIMATED, estimated

LEACE_CLEANED = Method(
    "leace_cleaned",
    "Mean difference without what tells the other emotions apart (LEACE)",
    "h + s·(c − W⁺PWc), W and P of the rows of the other emotions",
    "natural dose after erasure",
    "Belrose et al. 2023 (arXiv 2306.03819)",
    "one pass over the texts, an erasure per emotion and block",
    "one emotion drags another along",
    estimated("leace"),
    "residual",
    strengths=ESTIMATED,
)
