"""The control without the direction: random ones of the norms and strengths of ``residual``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.evaluation.arms.base import ArmKind, ImitatingPack
from affectlens.evaluation.arms.residual import MAIN
from affectlens.steering.methods.random_pack import random_pack

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


def imitate(pack: SteeringPack, seed: int) -> SteeringPack:
    """Random directions in place of those of the residual stream."""
    return random_pack(pack, "residual", seed)


RANDOM_DIRECTION = ArmKind(
    "random",
    "random direction, equal norm",
    "random directions of the norms and strengths of residual",
    "residual",
    ImitatingPack("pack_random", MAIN, imitate),
)
