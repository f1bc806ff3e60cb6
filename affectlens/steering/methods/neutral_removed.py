"""The subspace of neutral text projected out."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import ESTIMATED, estimated

NEUTRAL_REMOVED = Method(
    "neutral_removed",
    "Mean difference without the axes along which neutral replies vary",
    "h + s·(c − BBᵀc), B the leading axes of neutral replies (half of their variance)",
    "natural dose after projection",
    "Anthropic 2026, emotion concepts",
    "one pass over the texts and over neutral replies",
    "steered text goes off topic",
    estimated("group_centred", neutral_removed=True),
    "residual",
    strengths=ESTIMATED,
)
