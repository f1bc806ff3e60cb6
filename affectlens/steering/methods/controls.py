"""What a method must beat: no direction, another emotion's, no choice of units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.steering.methods.base import Material, Method
from affectlens.steering.methods.random_pack import random_pack
from affectlens.steering.methods.residual import REFINED, likely
from affectlens.steering.methods.units import random_units

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def random_directions(found: Material) -> SteeringPack:
    """Random directions in place of the refined ones, of equal norm at every block."""
    return random_pack(likely(found))


def halfway_round(target: str, emotions: Sequence[str]) -> str:
    """The emotion half the list away, so that each is steered for one other."""
    return emotions[(emotions.index(target) + len(emotions) // 2) % len(emotions)]


RANDOM_DIRECTION = Method(
    "random_direction",
    "Control: random directions of equal norm, tuned alike",
    "h + s·r, |r| = |v|, r drawn once per emotion",
    "the trained vector's length",
    "ours",
    "none",
    "is it the direction, or any push?",
    random_directions,
    "residual",
    strengths=REFINED,
    control=True,
)

OTHER_EMOTION = Method(
    "other_emotion",
    "Control: another emotion's refined direction, tuned alike",
    "h + s·v of another emotion",
    "the trained vector",
    "ours",
    "that of the direction",
    "is it this emotion, or any?",
    likely,
    "residual",
    strengths=REFINED,
    aims=halfway_round,
    control=True,
)

RANDOM_UNITS = Method(
    "random_units",
    "Control: as many random units in every sublayer, refined alike",
    "a + s·Δ at random units, Δ trained like the circuit's",
    "the trained values",
    "ours",
    "that of the circuit",
    "is it the choice of units, or the descent?",
    random_units,
    "circuit",
    strengths=REFINED,
    control=True,
)
