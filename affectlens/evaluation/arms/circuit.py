"""Steering by the circuit as the pack recommends."""

from __future__ import annotations

from affectlens.evaluation.arms.base import REFINED, ArmKind
from affectlens.evaluation.arms.residual import MAIN

CIRCUIT = ArmKind(
    "circuit", "circuit", "refined differences at the circuit's units", "circuit", MAIN, REFINED
)
