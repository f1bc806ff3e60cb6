"""Contrastive activation addition: emotion minus neutral."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import ESTIMATED, estimated

MEAN_DIFFERENCE = Method(
    "mean_difference",
    "Mean difference to the neutral reply to the same prompt (CAA)",
    "h + s·c, c = mean_g (h[g,e] − h[g,neutral])",
    "natural dose |c|",
    "Rimsky et al. 2024 (arXiv 2312.06681)",
    "one pass over matched replies",
    "pairs of emotional and neutral texts are at hand",
    estimated("diff_neutral", matched=True),
    "residual",
    strengths=ESTIMATED,
)
