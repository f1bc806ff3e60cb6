"""Steered only while a probe does not hear the emotion yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.residual import REFINED, likely

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def gated(found: Material) -> SteeringPack:
    """Refined directions, with probes that decide."""
    return likely(found).with_readout(found.sweep)


UNTIL_HEARD = Method(
    "until_heard",
    "Add the refined direction only while a probe does not hear the emotion",
    "h + s·v where p(e | h before) < ½, else h",
    "the trained vector",
    "after conditional steering (CAST, arXiv 2409.05907)",
    "that of the direction, and a probe per token",
    "as little steering as will do",
    gated,
    "residual",
    gate="{emotion}<0.5",
    strengths=REFINED,
)
