"""The control without refining, at the circuit's units."""

from __future__ import annotations

from affectlens.evaluation.arms.analytic_residual import ANALYTIC
from affectlens.evaluation.arms.base import ANALYTIC_UNITS, ArmKind

ANALYTIC_CIRCUIT = ArmKind(
    "analytic_circuit",
    "circuit, not refined",
    "differences of group means",
    "circuit",
    ANALYTIC,
    ANALYTIC_UNITS,
)
