"""The control without the choice of units and without refining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.base import ANALYTIC_UNITS, ArmKind, FoldedPack, Ingredients

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


def fold(found: Ingredients) -> SteeringPack:
    """The first draw of random units, with their own differences of group means."""
    from affectlens.steering import SteeringPack

    return SteeringPack.from_circuit(found.random_units(1, refined=False), found.model)


RANDOM_UNITS_ANALYTIC = ArmKind(
    "random_units_analytic",
    "random units, not refined",
    "random units with their own differences of group means",
    "circuit",
    FoldedPack("pack_random_units_analytic", fold),
    ANALYTIC_UNITS,
)
