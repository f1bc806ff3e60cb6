"""The rival and the circuit together: the model is asked and steered."""

from __future__ import annotations

from affectlens.evaluation.arms.base import ArmKind
from affectlens.evaluation.arms.prompted import system
from affectlens.evaluation.arms.residual import MAIN

PROMPTED_CIRCUIT = ArmKind(
    "prompted_circuit",
    "prompted and circuit",
    "the system prompt of prompted and the circuit, at the circuit's strengths",
    "circuit",
    MAIN,
    system=system,
)
