"""One pass over a corpus that keeps only means: of every neuron and of every head channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.capture import Prepared, prepare
from affectlens.activations.forward.tokenised import Ints
from affectlens.activations.positions import DEFAULT_POSITIONS, Position
from affectlens.activations.settings import MAX_TOKENS_PER_BATCH, PassSettings
from affectlens.activations.streaming.sum_sinks import SumSink, row_index
from affectlens.circuits.attribution.unit_engine import OUTPUTS, UnitEngine
from affectlens.circuits.attribution.unit_maps import head_map, stacked
from affectlens.circuits.attribution.unit_means import UnitMeans, cell_weights
from affectlens.core.errors import ModelError, unknown
from affectlens.core.places import Site
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel


@torch.no_grad()
def unit_means(
    model: LanguageModel,
    corpus: Corpus,
    emotions: Sequence[str],
    *,
    position: str | None = None,
    grouped: bool | None = None,
    max_tokens_per_batch: int = MAX_TOKENS_PER_BATCH,
) -> UnitMeans:
    """Run a corpus once and keep the means of every neuron and head channel.

    Args:
        model: The model.
        corpus: Labelled records; those of other emotions are passed over.
        emotions: Which emotions, and their order.
        position: Where to read; default: the design's, `DEFAULT_POSITIONS`.
        grouped: See `cell_weights`.
        max_tokens_per_batch: Padded tokens per forward pass.

    Raises:
        DataError: If an emotion has no records, a text is too long or has nothing at the position,
            or an activation is NaN.
        UnknownNameError: If there is no such position, or it is not one row per text.
        ModelError: If the model has no units that are known.

    Memory: two float64 numbers per emotion, valence and unit at most, however many records there
    are.
    """
    refuse_listeners(model.hf, "Means of units")
    where = Position.parse(position or DEFAULT_POSITIONS[corpus.design])
    if not where.pooled:
        raise unknown("position for a circuit", where.name, ["last", "mean:reply", "mean:text"])
    labels = zip(*((r.emotion, r.group, r.valence) for r in corpus), strict=True)
    emotion, group, valence = (list(column) for column in labels)
    weights, n_groups = cell_weights(emotion, group, valence, emotions, grouped=grouped)
    used = [i for i, weight in enumerate(weights.tolist()) if weight]
    records, weights = tuple(corpus.records[i] for i in used), weights[used]
    valences = tuple(dict.fromkeys(r.valence or "" for r in records))
    label = [
        emotions.index(str(r.emotion)) * len(valences) + valences.index(r.valence or "")
        for r in records
    ]
    share = torch.zeros(len(emotions) * len(valences), len(records), dtype=torch.float64)
    share[label, range(len(records))] = weights.double()
    total = share.sum(1)
    engine = UnitEngine(model)
    sites = engine.sites()
    if not sites:
        raise ModelError(_no_units(model))
    prepared = prepare(
        model,
        replace(corpus, records=records),
        sites=sites,
        positions=where.name,
        settings=PassSettings(max_tokens_per_batch=max_tokens_per_batch),
        engine=engine,
    )
    means = _means(prepared, engine, share / total.clamp_min(1e-12)[:, None])
    shape = (len(emotions), len(valences))
    return UnitMeans(
        emotions=tuple(emotions),
        valences=valences,
        weights=total.float().unflatten(0, shape),
        **{name: value.unflatten(0, shape) for name, value in means.items()},
        position=where.name,
        n_groups=n_groups,
        n_dropped=sum(e in emotions for e in emotion) - len(records),
    )


def _means(
    prepared: Prepared, engine: UnitEngine, share: Float[Tensor, "label record"]
) -> dict[str, Float[Tensor, "label layer ..."]]:
    """Run it, and give the tensors of `UnitMeans`, each record with its share of its label."""

    def weights(items: Ints) -> Float[Tensor, "label row"]:
        return share[:, torch.from_numpy(items)]

    sink = SumSink(row_index(prepared.plan), weights)
    prepared.run(sink, description="Averaging units")
    found = {site: sums.total.cpu().float() for (site, _), sums in sink.sums.items()}
    anatomy = prepared.model.anatomy
    layers, n = range(anatomy.n_layers), len(share)
    parts = {kind: _Parts.of(kind, found, engine, n) for kind in OUTPUTS}
    for part in anatomy.blocks:
        heads = head_map(part, anatomy.n_heads, anatomy.d_head)
        if heads is not None:
            for rows in (parts["z"].units, parts["z"].scaled):
                rows[part.layer] = heads.spread(rows[part.layer])
    none = torch.zeros(n, anatomy.d_model)
    tensors = {
        f"{prefix}{name}": stacked(rows)
        for kind, name in (("mlp_post", "neurons"), ("z", "heads"), ("expert_weights", "gates"))
        for prefix, rows in (("", parts[kind].units), ("scaled_", parts[kind].scaled))
    }
    scales = [torch.stack(parts[kind].scale, dim=1) for kind in ("z", "mlp_post")]
    outs = [[found.get(Site(i, kind), none) for kind in ("attn_out", "mlp_out")] for i in layers]
    return {
        **tensors,
        "scale": torch.stack(scales, dim=-1),
        "out": torch.stack([torch.stack(pair, dim=1) for pair in outs], dim=1),
    }


@dataclass(frozen=True, eq=False)
class _Parts:
    """What was read at the sites of one kind, by layer.

    Attributes:
        units: Mean of each number, of width 0 where a layer has no such site.
        scaled: The same times the scale of the norm after it.
        scale: Mean of that scale, 1 where there is none.
    """

    units: list[Float[Tensor, "label width"]]
    scaled: list[Float[Tensor, "label width"]]
    scale: list[Float[Tensor, " label"]]

    @classmethod
    def of(cls, kind: str, found: Mapping[Site, Tensor], engine: UnitEngine, n: int) -> _Parts:
        """Of all layers, for so many labels."""
        parts = cls([], [], [])
        for layer in range(engine.model.n_layers):
            site = Site(layer, kind)
            units = found.get(site, torch.zeros(n, 0))
            scaled, scale = units, torch.ones(n)
            if site in found and engine.scaled(site):
                width = (units.shape[1] - 1) // 2
                units, scaled, last = units.split([width, width, 1], dim=1)
                scale = last[:, 0]
            parts.units.append(units)
            parts.scaled.append(scaled)
            parts.scale.append(scale)
        return parts


def _no_units(model: LanguageModel) -> str:
    part = model.anatomy.blocks[0]
    why = part.lacks.get("o_proj") or "its parts are not known"
    return (
        f"{model.name} has neither heads nor neurons that are known: in block 0 {why}; read and "
        "steer its residual stream instead."
    )
