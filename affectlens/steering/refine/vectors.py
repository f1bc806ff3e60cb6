"""Refining steering vectors by gradient, so that steered text stays fluent.

An analytic direction says where emotions differ, not what makes the model *write* one. A few dozen
steps of gradient descent on the model's own likelihood of emotional replies close that gap: the
weights stay frozen, only what is added changes, and a circuit is refined inside its own units. No
judge has a part in it. Related: Cao et al., "Personalized steering ... bi-directional preference
optimization" (arXiv 2406.00045) train vectors by preference; here plain likelihood suffices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from affectlens.core import Site, WritePoint, fingerprint
from affectlens.steering.refine.descent import Advance, descend, of_additions, rms_per_layer
from affectlens.steering.refine.log_probabilities import Additions
from affectlens.steering.refine.replies import fingerprints
from affectlens.steering.refine.settings import CIRCUIT, RESIDUAL, RefineSettings

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_maps import UnitMap
    from affectlens.circuits.circuit import Circuit
    from affectlens.datasets.schema import Corpus
    from affectlens.geometry.directions import Directions
    from affectlens.models.loading import LanguageModel


def refine_directions(
    model: LanguageModel,
    directions: Directions,
    corpora: Corpus | Sequence[Corpus],
    *,
    layers: Sequence[int],
    settings: RefineSettings = RESIDUAL,
    advance: Advance = lambda _n: None,
) -> Directions:
    """Refine the directions of a few blocks together.

    Args:
        model: The model, weights untouched.
        directions: At ``resid_post`` of all ``layers``.
        corpora: Replies in groups that have every emotion. Several corpora give groups in turn;
            one that is named twice has twice the weight.
        layers: Blocks at whose output vectors will be added.
        settings: Of the descent.
        advance: Told about every step.

    Returns:
        Directions at those sites alone; natural dose = length of the refined vector. They have no
        split-half cosine: that of the start says nothing about what the descent made of it.

    Raises:
        DataError: If no group has every emotion, or one has several prompts.
        ModelError: If the loss is not finite.
    """
    from affectlens.models.generation.listeners import refuse_listeners

    refuse_listeners(model.hf, "Refinement")
    directions.provenance.require_model(model.fingerprint, model.name)
    sites = tuple(Site(layer, "resid_post") for layer in layers)
    index = [directions.site_index(site) for site in sites]
    start = directions.centroid()[index].transpose(0, 1).contiguous()  # [emotion, layer, d]
    scale = rms_per_layer(start, torch.ones_like(start, dtype=torch.bool))

    def additions(free: Sequence[Tensor]) -> Additions:
        vectors = free[0] * scale.to(free[0].device)
        return {WritePoint(n, "resid_post"): vectors[:, i] for i, n in enumerate(layers)}

    lowered = of_additions(model, additions, settings)
    (free,) = descend(
        model, corpora, directions.emotions, [start / scale], lowered, settings, advance
    )
    found = (free * scale).transpose(0, 1)
    norms = found.norm(dim=-1)
    parameters = {
        **directions.provenance.parameters,
        "refined": asdict(settings),
        "refined_on": fingerprints(corpora),
        "refined_layers": list(layers),
    }
    return replace(
        directions,
        sites=sites,
        vectors=found / norms[..., None].clamp_min(1e-12),
        norms=norms,
        estimator=f"{directions.estimator}+refined",
        split_half=None,
        provenance=replace(
            directions.provenance,
            parameters=parameters,
            inputs={"start": directions.provenance.fingerprint},
        ),
    )


def refine_circuit(
    model: LanguageModel,
    circuit: Circuit,
    corpora: Corpus | Sequence[Corpus],
    *,
    settings: RefineSettings = CIRCUIT,
    advance: Advance = lambda _n: None,
) -> Circuit:
    """Refine what is added to a circuit's units; units outside it stay untouched.

    Arguments and errors as `refine_directions`.
    """
    from affectlens.circuits.attribution.unit_maps import head_map, neuron_map
    from affectlens.models.generation.listeners import refuse_listeners

    refuse_listeners(model.hf, "Refinement")
    circuit.provenance.require_model(model.fingerprint, model.name)
    masks = circuit.masks()
    deltas = [
        d * m for d, m in zip((circuit.delta_neurons, circuit.delta_heads), masks, strict=True)
    ]
    scales = [rms_per_layer(d, m) for d, m in zip(deltas, masks, strict=True)]
    device = model.device
    parts = model.anatomy.blocks
    maps: dict[str, list[UnitMap | None]] = {
        "down_proj_out": [neuron_map(part) for part in parts],
        "o_proj_out": [head_map(part, circuit.n_heads, circuit.d_head) for part in parts],
    }
    gates = [(m * s).to(device) for m, s in zip(masks, scales, strict=True)]
    used = [m.any(-1).any(0).nonzero()[:, 0].tolist() for m in masks]

    def additions(free: Sequence[Tensor]) -> Additions:
        made: dict[WritePoint, Tensor] = {}
        for (point, of_layer), values, gate, layers in zip(
            maps.items(), free, gates, used, strict=True
        ):
            for n in layers:
                units = of_layer[n]
                assert units is not None  # a circuit has no units where there are none
                made[WritePoint(n, point)] = units.written(values[:, n] * gate[:, n])
        return made

    start = [d / s for d, s in zip(deltas, scales, strict=True)]
    lowered = of_additions(model, additions, settings)
    free = descend(model, corpora, circuit.emotions, start, lowered, settings, advance)
    neurons, heads = (f * s * m for f, s, m in zip(free, scales, masks, strict=True))
    how = f"refined:{fingerprint(asdict(settings), fingerprints(corpora))}"
    return circuit.with_delta(neurons, heads, how=how)
