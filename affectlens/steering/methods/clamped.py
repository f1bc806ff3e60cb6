"""The projection on the refined direction set."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import likely

CLAMPED = Method(
    "clamped",
    "Set the projection on the refined direction",
    "h' = h + (s·|v| − ⟨h, u⟩) u",
    "length of the trained vector",
    "clamped features (Templeton et al. 2024)",
    "that of the direction",
    "the prompt itself is emotional and that is to be overruled",
    likely,
    "residual",
    "clamp",
    strengths=(0.8, 1.3, 2.1),
)
