"""The control without the choice of units, refined like the circuit: one arm a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.base import REFINED, ArmKind, FoldedPack, Ingredients

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


def _arm(draw: int, about: str) -> ArmKind:
    def fold(found: Ingredients) -> SteeringPack:
        from affectlens.steering import SteeringPack

        return SteeringPack.from_circuit(found.random_units(draw, refined=True), found.model)

    name = f"random_units_refined_{draw}"
    title = f"random units refined alike, {draw}"
    return ArmKind(name, title, about, "circuit", FoldedPack(f"pack_{name}", fold), REFINED)


RANDOM_UNITS_REFINED = (
    _arm(1, "as many units per sublayer as the circuit, drawn at random and refined"),
    *(_arm(draw, "the same with another draw") for draw in range(2, 5)),
)
ALL_DRAWS = "random units refined alike, all draws"
"""In place of an arm's name: the draws together, which are a sample themselves."""
