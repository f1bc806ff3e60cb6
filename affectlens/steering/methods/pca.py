"""Representation engineering: the first axis of differences."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import ESTIMATED, estimated

PCA = Method(
    "pca",
    "First principal axis of pairs within a content (RepE)",
    "h + s·c, c along the axis of the pairs, as long as the centred mean along it",
    "natural dose |c|",
    "Zou et al. 2023 (arXiv 2310.01405)",
    "one pass over the texts",
    "a few pairs lie far off and would pull a mean",
    estimated("pca"),
    "residual",
    strengths=ESTIMATED,
)
