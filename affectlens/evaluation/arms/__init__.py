"""Arms of the steering comparison.

All arms answer byte-identical neutral prompts with the same decoding; only the ``prompted`` arms
have a system prompt that asks for the emotion. Beside the two arms that steer as the pack
recommends (``residual``, ``circuit``) stand controls that leave one thing out each: the refining,
the choice of units, the direction. An arm says what it is steered with (`ArmKind.pack`); who finds
the parts (`Ingredients`) and who keeps the files need not know which arms there are.
"""

from __future__ import annotations

from collections.abc import Mapping

from affectlens.core.errors import unknown
from affectlens.core.registry import Registry
from affectlens.evaluation.arms.analytic_circuit import ANALYTIC_CIRCUIT
from affectlens.evaluation.arms.analytic_residual import ANALYTIC_RESIDUAL
from affectlens.evaluation.arms.base import ArmKind, FoldedPack, ImitatingPack, Ingredients
from affectlens.evaluation.arms.circuit import CIRCUIT
from affectlens.evaluation.arms.prompted import PROMPTED
from affectlens.evaluation.arms.prompted_circuit import PROMPTED_CIRCUIT
from affectlens.evaluation.arms.random_direction import RANDOM_DIRECTION
from affectlens.evaluation.arms.random_units_analytic import RANDOM_UNITS_ANALYTIC
from affectlens.evaluation.arms.random_units_refined import RANDOM_UNITS_REFINED
from affectlens.evaluation.arms.residual import MAIN, RESIDUAL
from affectlens.evaluation.arms.unsteered import UNSTEERED as _UNSTEERED
from affectlens.steering.methods.random_pack import random_pack

ARMS: Registry[ArmKind] = Registry(
    "arm",
    _UNSTEERED,
    PROMPTED,
    RESIDUAL,
    CIRCUIT,
    PROMPTED_CIRCUIT,
    ANALYTIC_RESIDUAL,
    ANALYTIC_CIRCUIT,
    *RANDOM_UNITS_REFINED,
    RANDOM_UNITS_ANALYTIC,
    RANDOM_DIRECTION,
)
"""Every arm of a run, in the order of its tables."""

UNSTEERED = _UNSTEERED.name
"""The arm that all others are relative to."""


def folded_packs() -> Mapping[str, FoldedPack]:
    """The packs whose strengths have to be chosen, by name, each once."""
    packs = [kind.pack for kind in ARMS.values() if isinstance(kind.pack, FoldedPack)]
    return {pack.name: pack for pack in packs}


def pack_to_tune(arm: str) -> FoldedPack:
    """The pack whose strengths are chosen for an arm.

    Raises:
        UnknownNameError: If there is no such arm, or none to choose.
    """
    pack = ARMS[arm].pack
    if not isinstance(pack, FoldedPack):
        tuned = [name for name, kind in ARMS.items() if isinstance(kind.pack, FoldedPack)]
        raise unknown("arm whose strengths are chosen", arm, tuned)
    return pack


__all__ = [
    "ARMS",
    "MAIN",
    "UNSTEERED",
    "ArmKind",
    "FoldedPack",
    "ImitatingPack",
    "Ingredients",
    "folded_packs",
    "pack_to_tune",
    "random_pack",
]
