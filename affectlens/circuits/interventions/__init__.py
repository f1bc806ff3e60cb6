"""Interventions: what a model does when some of its values are others."""

from __future__ import annotations

from affectlens.circuits.interventions.base import Change, Intervention, Kind
from affectlens.circuits.interventions.intervening import heads, intervening, neurons
from affectlens.circuits.interventions.project import CLAMP, PROJECT_OUT, clamp, project_out
from affectlens.circuits.interventions.replace import REPLACE, replace
from affectlens.circuits.interventions.scale import SCALE, scale
from affectlens.circuits.interventions.shift import ADD, add
from affectlens.circuits.interventions.zero import ZERO, zero
from affectlens.core.registry import Registry

INTERVENTIONS: Registry[Kind] = Registry(
    "intervention", ZERO, REPLACE, ADD, SCALE, CLAMP, PROJECT_OUT
)

__all__ = [
    "INTERVENTIONS",
    "Change",
    "Intervention",
    "Kind",
    "add",
    "clamp",
    "heads",
    "intervening",
    "neurons",
    "project_out",
    "replace",
    "scale",
    "zero",
]
