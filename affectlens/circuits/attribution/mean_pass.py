"""One pass over a corpus that keeps only means: of every neuron and of every head channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from affectlens.circuits.attribution.unit_means import UnitMeans, cell_weights
from affectlens.core.errors import unknown
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
    prepared = prepare(
        model,
        replace(corpus, records=records),
        sites=[
            f"{kind}@{i}"
            for i in range(model.n_layers)
            for pair in OUTPUTS.items()
            for kind in pair
        ],
        positions=where.name,
        settings=PassSettings(max_tokens_per_batch=max_tokens_per_batch),
        engine=UnitEngine(model),
    )
    means = _means(prepared, share / total.clamp_min(1e-12)[:, None])
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
    prepared: Prepared, share: Float[Tensor, "label record"]
) -> dict[str, Float[Tensor, "label layer ..."]]:
    """Run it, and give the tensors of `UnitMeans`, each record with its share of its label."""

    def weights(items: Ints) -> Float[Tensor, "label row"]:
        return share[:, torch.from_numpy(items)]

    sink = SumSink(row_index(prepared.plan), weights)
    prepared.run(sink, description="Averaging units")
    engine = prepared.engine
    assert isinstance(engine, UnitEngine)
    found = {site: sums.total.cpu().float() for (site, _), sums in sink.sums.items()}
    layers = range(prepared.model.n_layers)
    raw: dict[str, list[Tensor]] = {kind: [] for kind in OUTPUTS}
    scaled: dict[str, list[Tensor]] = {kind: [] for kind in OUTPUTS}
    scale: dict[str, list[Tensor]] = {kind: [] for kind in OUTPUTS}
    for kind in OUTPUTS:
        for site in (Site(layer, kind) for layer in layers):
            units, times, by = _parts(found[site], engine.scaled(site))
            raw[kind].append(units)
            scaled[kind].append(times)
            scale[kind].append(by)
    neurons, heads = (torch.stack(raw[kind], dim=1) for kind in ("mlp_post", "z"))
    normed = {kind: any(engine.scaled(Site(layer, kind)) for layer in layers) for kind in OUTPUTS}
    return {
        "neurons": neurons,
        "heads": heads,
        "scaled_neurons": torch.stack(scaled["mlp_post"], dim=1) if normed["mlp_post"] else neurons,
        "scaled_heads": torch.stack(scaled["z"], dim=1) if normed["z"] else heads,
        "scale": torch.stack([torch.stack(rows, dim=1) for rows in scale.values()], dim=-1),
        "out": torch.stack(
            [torch.stack([found[Site(i, out)] for out in OUTPUTS.values()], dim=1) for i in layers],
            dim=1,
        ),
    }


def _parts(
    sums: Float[Tensor, "label width"], scaled: bool
) -> tuple[Float[Tensor, "label units"], Float[Tensor, "label units"], Float[Tensor, " label"]]:
    """Units, units times the scale of the norm after them, and that scale (1 where none is)."""
    if not scaled:
        return sums, sums, torch.ones(len(sums))
    width = (sums.shape[1] - 1) // 2
    units, times, by = sums.split([width, width, 1], dim=1)
    return units, times, by[:, 0]
