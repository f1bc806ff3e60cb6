"""The refined direction, turned towards."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import likely

ROTATION = Method(
    "rotation",
    "Turn towards the refined direction and keep the norm",
    "h' = |h| (cos θ n + sin θ q), θ = s · 90°",
    "a quarter turn at each block",
    "after Angular Steering (arXiv 2510.26243)",
    "that of the direction; not in servers",
    "adding breaks the text by making hidden states longer",
    likely,
    "residual",
    "rotate",
    strengths=(0.03, 0.05, 0.08),
)
