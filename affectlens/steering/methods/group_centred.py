"""Mean differences within groups of one content."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import ESTIMATED, estimated

GROUP_CENTRED = Method(
    "group_centred",
    "Mean difference to the mean of one content's emotions",
    "h + s·c, c = mean_g (h[g,e] − mean_e' h[g,e'])",
    "natural dose |c|",
    "Wang et al. 2025 (arXiv 2510.11328)",
    "one pass over the texts",
    "the plain start: matched texts, no training",
    estimated("group_centred"),
    "residual",
    strengths=ESTIMATED,
)
