"""Low-rank maps trained by likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.residual import REFINED

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def trained(found: Material) -> SteeringPack:
    """Maps from the same start as the directions, in as many steps on the same texts."""
    from affectlens.steering.refine import refine_low_rank

    return refine_low_rank(
        found.model,
        found.directions(refined=False),
        found.corpora,
        layers=found.layers,
        settings=found.descent("residual"),
    )


LOREFT = Method(
    "loreft",
    "Low-rank maps of the residual stream trained on the likelihood of replies (LoReFT)",
    "h + s·Rᵀ(Wh + b − Rh), RRᵀ = 1, R, W, b = argmax log p(reply in e | prompt)",
    "the trained map",
    "Wu et al. 2024 (arXiv 2404.03592), one map per emotion",
    "a descent like that of likelihood, two small products per token",
    "one vector is too stiff: what is added should depend on what is there",
    trained,
    "low_rank",
    strengths=REFINED,
)
