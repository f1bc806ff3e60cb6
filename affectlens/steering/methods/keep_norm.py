"""The refined direction added, the norm kept."""

from affectlens.steering.methods.base import Method
from affectlens.steering.methods.residual import REFINED, likely

KEEP_NORM = Method(
    "keep_norm",
    "Add the refined direction and keep the norm",
    "h' = (h + s·v) |h| / |h + s·v|",
    "the trained vector",
    "norm-preserving addition",
    "that of the direction",
    "like rotation, in servers too",
    likely,
    "residual",
    "add_keep_norm",
    strengths=REFINED,
)
