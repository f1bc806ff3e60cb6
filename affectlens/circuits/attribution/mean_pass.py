"""One pass over a corpus that keeps only means: of every neuron and of every head channel."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.activations.positions import DEFAULT_POSITIONS, Position
from affectlens.circuits.attribution.postnorm import norm_gain, token_scale
from affectlens.circuits.attribution.unit_means import UnitMeans, cell_weights
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import Site, WritePoint
from affectlens.core.progress import progress
from affectlens.models.batches import BatchLimits, cut, shortest_first
from affectlens.models.generation.listeners import refuse_listeners
from affectlens.models.hooking.hooks import Writer, reading, writing
from affectlens.models.sinks import Sinks

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record
    from affectlens.models.loading import LanguageModel

_OUT = {"z": "attn_out", "mlp_post": "mlp_out"}


def token_windows(
    model: LanguageModel, records: Sequence[Record], position: str
) -> list[tuple[tuple[int, ...], list[int]]]:
    """Token ids of each record, and which of them to average over: no attention sinks in a mean.

    Raises:
        DataError: If a text is longer than the model's context, or has nothing at the position.
        UnknownNameError: If there is no such position, or it is not one row per text.
    """
    from affectlens.models.chat.chats import encode

    where = Position.parse(position)
    if not where.pooled:
        raise unknown("position for a circuit", position, ["last", "mean:reply", "mean:text"])
    sinks = model.sinks if where.spares_sinks else Sinks()
    windows: list[tuple[tuple[int, ...], list[int]]] = []
    for record in records:
        asks = record.messages[-1].role not in ("assistant", "text")
        row = encode(model.tokenizer, record.chat, add_generation_prompt=asks)
        if len(row) > model.context_length:
            raise DataError(
                f"Record {record.id} has {len(row)} tokens, {model.name} reads "
                f"{model.context_length}; shorten it or leave it out."
            )
        tokens = where.tokens(row.spans, sinks.mask(row.ids), record.id)
        windows.append((row.ids, tokens.tolist()))
    return windows


@dataclass(frozen=True, eq=False)
class _Sums:
    """Weighted sums per label (emotion × valence) and layer, built up batch by batch."""

    n_labels: int
    n_layers: int
    device: torch.device
    totals: dict[tuple[str, str], Float[Tensor, "label layer ..."]]

    def add(self, name: str, site: Site, labels: Tensor, rows: Float[Tensor, "row ..."]) -> None:
        """Add each row to its label."""
        key = (name, site.kind)
        if key not in self.totals:
            shape = (self.n_labels, self.n_layers, *rows.shape[1:])
            self.totals[key] = torch.zeros(shape, device=self.device)
        self.totals[key][:, site.layer].index_add_(0, labels, rows.float())


@torch.no_grad()
def unit_means(
    model: LanguageModel,
    corpus: Corpus,
    emotions: Sequence[str],
    *,
    position: str | None = None,
    grouped: bool | None = None,
    max_tokens_per_batch: int = 4096,
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
        DataError: If an emotion has no records, a text is too long, or an activation is NaN.

    Memory: one fp32 number per emotion, valence and unit, however many records there are.
    """
    refuse_listeners(model.hf, "Means of units")
    position = position or DEFAULT_POSITIONS[corpus.design]
    labels = zip(*((r.emotion, r.group, r.valence) for r in corpus), strict=True)
    emotion, group, valence = (list(column) for column in labels)
    weights, n_groups = cell_weights(emotion, group, valence, emotions, grouped=grouped)
    used = [i for i, weight in enumerate(weights.tolist()) if weight]
    records, weights = [corpus.records[i] for i in used], weights[used]
    valences = tuple(dict.fromkeys(r.valence or "" for r in records))
    label = torch.tensor(
        [
            emotions.index(str(r.emotion)) * len(valences) + valences.index(r.valence or "")
            for r in records
        ]
    )
    sums = _Sums(len(emotions) * len(valences), model.n_layers, model.device, {})
    _run(model, records, weights, label, sums, position, max_tokens_per_batch)
    shape = (len(emotions), len(valences))
    total = torch.zeros(sums.n_labels).index_add_(0, label, weights)
    return UnitMeans(
        emotions=tuple(emotions),
        valences=valences,
        weights=total.unflatten(0, shape),
        **_tensors(sums, total, shape, model.name),
        position=position,
        n_groups=n_groups,
        n_dropped=sum(e in emotions for e in emotion) - len(records),
    )


def _run(
    model: LanguageModel,
    records: Sequence[Record],
    weights: Float[Tensor, " record"],
    label: Int[Tensor, " record"],
    sums: _Sums,
    position: str,
    max_tokens: int,
) -> None:
    """Run the records in batches and add their rows to the sums."""
    anatomy = model.anatomy
    like = torch.empty(anatomy.d_model, device=model.device)
    gains: dict[Site, Tensor | None] = {}
    for part in anatomy.blocks:
        gains[Site(part.layer, "attn_out")] = norm_gain(part.attn_post_norm, like)
        gains[Site(part.layer, "mlp_out")] = norm_gain(part.mlp_post_norm, like)
    windows = token_windows(model, records, position)
    lengths = [len(row) for row, _ in windows]
    mixed = len(set(lengths)) == 1 or model.padding.upto(max(lengths)).right
    with progress("Averaging units", len(records)) as advance:
        for batch in cut(shortest_first(lengths), lengths, BatchLimits(max_tokens, mixed=mixed)):
            ids, mask = model.encode_batch([windows[i][0] for i in batch], "right")
            share = torch.zeros(mask.shape)
            for row, i in enumerate(batch):
                tokens = windows[i][1]
                share[row, tokens] = weights[i] / len(tokens)
            share = share.to(model.device)
            with _pooling(model, sums, gains, label[batch].to(model.device), share):
                anatomy.base(input_ids=ids, attention_mask=mask, use_cache=False)
            advance(len(batch))


def _tensors(
    sums: _Sums, total: Float[Tensor, " label"], shape: tuple[int, int], name: str
) -> dict[str, Float[Tensor, "emotion valence layer ..."]]:
    """The tensors of `UnitMeans`."""

    def mean(which: str, kind: str) -> Tensor:
        value = sums.totals[which, kind].cpu()
        value = value / total.clamp_min(1e-12).reshape(-1, *[1] * (value.ndim - 1))
        if not bool(value.isfinite().all()):
            raise DataError(f"{kind} of {name} is NaN or infinite; load it with another dtype.")
        return value.unflatten(0, shape)

    normed = {kind for which, kind in sums.totals if which == "scaled"}
    raw = {kind: mean("raw", kind) for kind in _OUT}
    scaled = {kind: mean("scaled", kind) if kind in normed else raw[kind] for kind in _OUT}
    ones = torch.ones(*shape, sums.n_layers)
    scale = [mean("scale", kind) if kind in normed else ones for kind in _OUT]
    return {
        "neurons": raw["mlp_post"],
        "heads": raw["z"],
        "scaled_neurons": scaled["mlp_post"],
        "scaled_heads": scaled["z"],
        "scale": torch.stack(scale, dim=-1),
        "out": torch.stack([mean("raw", kind) for kind in _OUT.values()], dim=3),
    }


@contextmanager
def _pooling(
    model: LanguageModel,
    sums: _Sums,
    gains: Mapping[Site, Tensor | None],
    labels: Int[Tensor, " row"],
    share: Float[Tensor, "row pos"],
) -> Generator[None]:
    """While it is open, a forward pass adds its rows to the sums.

    Args:
        model: The model.
        sums: Where to add.
        gains: Weight of the norm after each sublayer.
        labels: Label of each row.
        share: Weight of each token; 0 for those that are not read.
    """
    inputs: dict[Site, tuple[Site, Tensor]] = {}  # a sublayer's input, until its scale is known
    before: dict[Site, Tensor] = {}  # its output before the norm
    columns = share.any(0).nonzero().flatten()
    window = slice(int(columns[0]), int(columns[-1]) + 1)

    def pool(value: Tensor, weight: Tensor) -> Tensor:
        return torch.einsum("bt,btw->bw", weight[:, window], value[:, window].float())

    def keep(site: Site) -> Writer:
        def look(value: Tensor) -> None:
            before[site] = value

        return look

    def read(site: Site, value: Tensor) -> None:
        sums.add("raw", site, labels, pool(value, share))
        if site.kind in _OUT:
            output = Site(site.layer, _OUT[site.kind])
            if gains[output] is not None:
                inputs[output] = site, value
            return
        gain = gains[site]
        if gain is not None:
            source, held = inputs.pop(site)
            weight = share * token_scale(before.pop(site), value, gain)
            sums.add("scaled", source, labels, pool(held, weight))
            sums.add("scale", source, labels, weight.sum(1))

    layers = range(model.n_layers)
    sites = [Site(i, kind) for i in layers for kind in (*_OUT, *_OUT.values())]
    points = {"attn_out": "o_proj_out", "mlp_out": "down_proj_out"}
    looks = {
        WritePoint(site.layer, points[site.kind]): keep(site)
        for site, gain in gains.items()
        if gain is not None
    }
    with writing(model.anatomy, looks), reading(model.anatomy, sites, read):
        yield
