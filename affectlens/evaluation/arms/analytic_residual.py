"""The control without refining, in the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.base import ArmKind, FoldedPack, Ingredients, both_modes

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


def fold(found: Ingredients) -> SteeringPack:
    """Directions as estimated, and the circuit with its differences of group means."""
    return both_modes(found, refined=False)


ANALYTIC = FoldedPack("pack_analytic", fold)

ANALYTIC_RESIDUAL = ArmKind(
    "analytic_residual",
    "residual, not refined",
    "directions as estimated",
    "residual",
    ANALYTIC,
    (0.5, 0.9, 1.6),
)
