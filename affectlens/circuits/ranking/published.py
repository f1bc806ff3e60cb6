"""The published choice: a budget split by influence, floors per layer, highest contributions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.circuits.allocation import Budget, allocate
from affectlens.circuits.ranking.base import Search, Strategy
from affectlens.circuits.units import choose, there_only
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit


def published(search: Search) -> Circuit:
    """So many units by arXiv 2510.11328 §6, with its floors and its cap as `Budget` has them.

    Raises:
        DataError: If no influence was measured for the circuit.
    """
    circuit = search.circuit
    if circuit.influence is None:
        raise DataError(
            "This circuit has no influence to split a budget by; find one with find_circuit."
        )
    total = search.neurons + search.heads
    budget = Budget(total=total, neuron_share=search.neurons / total, max_share=1.0)
    counts = allocate(circuit.influence.chosen, budget, circuit.sizes)
    chosen = {
        kind: choose(there_only(scores, circuit.sizes[:, i]), counts[..., i], circuit.emotions)
        for i, (kind, scores) in enumerate(
            (("heads", circuit.head_scores), ("neurons", circuit.neuron_scores))
        )
    }
    given = circuit.provenance
    parameters = {
        **given.parameters,
        "ranking": "published",
        "neurons": search.neurons,
        "heads": search.heads,
    }
    return replace(
        circuit,
        neurons=chosen["neurons"],
        heads=chosen["heads"],
        allocation=counts,
        provenance=replace(given, parameters=parameters),
        evidence=None,
    )


PUBLISHED = Strategy(
    "published",
    "budget by influence, floors per layer, highest contributions",
    published,
    reads_task=False,
)
