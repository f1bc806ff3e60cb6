"""A circuit at other budgets, and what stands beside it: other choices of as many units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from affectlens.circuits.allocation import Budget, allocate, top_k_allocation, uniform_allocation
from affectlens.circuits.units import KINDS, choose, there_only
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit

Counts = Int[Tensor, "emotion layer 2"]

CIRCUIT, TOP, UNIFORM, RANDOM = "circuit", "top", "uniform", "random"


def _by_influence(circuit: Circuit, budget: Budget) -> Counts:
    """As `find_circuit` splits it; a circuit that another ranking made has no split but that."""
    if circuit.influence is None:
        return _highest(circuit, budget)
    return allocate(circuit.influence.chosen, budget, circuit.sizes)


def _highest(circuit: Circuit, budget: Budget) -> Counts:
    return top_k_allocation(circuit.neuron_scores, circuit.head_scores, budget, circuit.sizes)


def _evenly(circuit: Circuit, budget: Budget) -> Counts:
    return uniform_allocation(len(circuit.emotions), budget, circuit.sizes)


CHOICES: Mapping[str, Callable[[Circuit, Budget], Counts]] = {
    CIRCUIT: _by_influence,
    TOP: _highest,
    UNIFORM: _evenly,
}
"""How a budget is split over sublayers; in each, the highest scores are taken."""


def at_budget(circuit: Circuit, count: int, choice: str = CIRCUIT) -> Circuit:
    """A circuit with so many units per emotion, of all that were scored.

    The share of heads stays, rounded; a sublayer's floor is one unit while the budget lasts.

    Args:
        circuit: Whose scores and differences are kept; differences must cover all units, as those
            of `find_circuit` do and refined ones do not.
        count: Units per emotion.
        choice: One of :data:`CHOICES`.

    Raises:
        DataError: If the circuit has values for its own units alone, or there are fewer units.
    """
    share = _neuron_share(circuit)
    budget = Budget(total=count, neuron_share=share, floor_neurons=1, floor_heads=1, max_share=1.0)
    there = int(circuit.sizes.sum())
    heads, neurons = budget.split(circuit.sizes)
    if count < 1 or heads + neurons < count:
        raise DataError(
            f"A circuit of {count} units with this share of heads cannot be made of the model's "
            f"{there} units; ask for a count from 1 on that is smaller."
        )
    _require_deltas(circuit)
    counts = CHOICES[choice](circuit, budget)
    rankings = (circuit.head_scores, circuit.neuron_scores)
    heads_by, neurons_by = (
        there_only(scores, sizes) for scores, sizes in zip(rankings, circuit.sizes.T, strict=True)
    )
    parameters = {**circuit.provenance.parameters, "units": count, "choice": choice}
    return replace(
        circuit,
        neurons=choose(neurons_by, counts[..., 1], circuit.emotions),
        heads=choose(heads_by, counts[..., 0], circuit.emotions),
        allocation=counts,
        evidence=None,
        provenance=replace(circuit.provenance, parameters=parameters),
    )


def budget_arm(circuit: Circuit, count: int, arm: str) -> Circuit:
    """The circuit of an arm at a budget.

    Args:
        circuit: As of `at_budget`.
        count: Units per emotion.
        arm: One of :data:`CHOICES`, or ``"random_N"``: draw N of as many units in every sublayer
            as ``"circuit"`` has there.
    """
    if arm in CHOICES:
        return at_budget(circuit, count, arm)
    return at_budget(circuit, count).randomised(int(arm.removeprefix(f"{RANDOM}_")))


def _neuron_share(circuit: Circuit) -> float:
    counts = circuit.allocation.sum((0, 1)).tolist()
    total = sum(counts)
    if not total:
        raise DataError("This circuit has no units, so there is no share of heads to keep.")
    return counts[KINDS.index("neurons")] / total


def _require_deltas(circuit: Circuit) -> None:
    """What `Circuit.randomised` refuses, before anything is refined."""
    circuit.randomised(0)
