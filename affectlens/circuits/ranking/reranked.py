"""Circuits by another ranking of the same units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.allocation import highest
from affectlens.circuits.units import choose, there_only
from affectlens.core.artefact import fingerprint
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.circuit import Circuit


def reranked(
    circuit: Circuit,
    neuron_scores: Float[Tensor, "emotion layer d_mlp"],
    head_scores: Float[Tensor, "emotion layer n_heads"],
    *,
    neurons: int,
    heads: int,
    how: str,
) -> Circuit:
    """The highest scores of the whole model, without floors or shares of layers.

    Args:
        circuit: Whose differences are kept; they must cover all units, as those of `find_circuit`
            do and refined ones do not.
        neuron_scores, head_scores: Of every unit, for example of `attribution_patching`.
        neurons, heads: How many of each.
        how: What the scores are; goes into the provenance.

    Raises:
        DataError: If scores are of another shape or NaN, or there are fewer units.
    """
    chosen: dict[str, Any] = {}
    counts = torch.zeros_like(circuit.allocation)
    given = (("heads", head_scores, heads), ("neurons", neuron_scores, neurons))
    for kind, (name, scores, count) in enumerate(given):
        known = circuit.head_scores if name == "heads" else circuit.neuron_scores
        if scores.shape != known.shape or not bool(scores.isfinite().all()):
            raise DataError(
                f"The scores of the {name} are {list(scores.shape)} or hold NaN; the circuit has "
                f"{list(known.shape)}."
            )
        there = int(circuit.sizes[:, kind].sum())
        if not 0 <= count <= there:
            raise DataError(f"There are {there} {name}, not {count}; ask for fewer.")
        scores = there_only(scores, circuit.sizes[:, kind])
        counts[..., kind] = highest(scores, count)
        chosen[name] = choose(scores, counts[..., kind], circuit.emotions)
    content = fingerprint(*(x.float().numpy().tobytes() for x in (neuron_scores, head_scores)))
    parameters = {"ranking": how, "scores": content, "neurons": neurons, "heads": heads}
    return replace(
        circuit,
        **chosen,
        neuron_scores=neuron_scores.float(),
        head_scores=head_scores.float(),
        allocation=counts,
        influence=None,
        evidence=None,
        provenance=replace(
            circuit.provenance, parameters={**circuit.provenance.parameters, **parameters}
        ),
    )
