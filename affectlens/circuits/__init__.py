"""Circuits: which neurons and heads write an emotion, how many of them, and what to add to them."""

from affectlens.circuits.allocation import Budget, allocate, top_k_allocation, uniform_allocation
from affectlens.circuits.attribution.contributions import Contributions, contributions, score_units
from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.unit_means import UnitMeans, difference
from affectlens.circuits.circuit import Circuit
from affectlens.circuits.find import CircuitSearchSettings, find_circuit, neutral_prompts
from affectlens.circuits.influence import InfluenceProfile, influence
from affectlens.circuits.overlap import Overlap, overlap
from affectlens.circuits.units import Unit, choose

__all__ = [
    "Budget",
    "Circuit",
    "CircuitSearchSettings",
    "Contributions",
    "InfluenceProfile",
    "Overlap",
    "Unit",
    "UnitMeans",
    "allocate",
    "choose",
    "contributions",
    "difference",
    "find_circuit",
    "influence",
    "neutral_prompts",
    "overlap",
    "score_units",
    "top_k_allocation",
    "uniform_allocation",
    "unit_means",
]
