"""Steering of the residual stream as the pack recommends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.base import REFINED, ArmKind, FoldedPack, Ingredients, both_modes

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


def fold(found: Ingredients) -> SteeringPack:
    """The pack to use: refined directions and circuit, with probes and sizes."""
    return both_modes(found, refined=True).with_readout(found.sweep)


MAIN = FoldedPack("pack", fold)
"""The pack that a run is for; all others are those of controls."""

RESIDUAL = ArmKind(
    "residual",
    "residual",
    "refined directions in the residual stream",
    "residual",
    MAIN,
    REFINED,
)
