"""Capture: one forward pass per batch, any sites at any positions.

Raw hooks on the model without its unembedding; the pass ends after the deepest site asked for.
Texts are sorted by length and batched by tokens. Rows are gathered (and averaged, in float32) on
the model's device, so only what is kept travels to the CPU, and go straight to their file.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.activations.files import torch_dtype
from affectlens.activations.manifest import LABELS, row_table
from affectlens.activations.positions import DEFAULT_POSITIONS, Position, parse_positions
from affectlens.activations.store import ActivationStore
from affectlens.activations.writer import StoreWriter, new_folder
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, ModelError, unknown
from affectlens.core.progress import progress
from affectlens.core.sites import Site, expand_sites
from affectlens.datasets.schema import Corpus, Record
from affectlens.models.chat import render, tokenize
from affectlens.models.hooks import deepest, reading
from affectlens.models.loading import LanguageModel

OVERLONG: tuple[str, ...] = ("error", "truncate", "skip")

Values = dict[tuple[Site, str], Tensor]


@dataclass(frozen=True)
class _Text:
    """A record ready to run: its tokens, and which of them each position reads."""

    record: Record
    ids: tuple[int, ...]
    spans: Mapping[str, range]


@dataclass(frozen=True)
class _Gather:
    """What one position takes from a batch.

    Attributes:
        index: Tokens to take, in the flattened batch.
        lengths: How many of them make one row (all ones if unpooled).
        rows: Where the rows go in the store.
        owner: Which text of the batch each row comes from.
    """

    position: str
    index: Int[Tensor, " token"]
    lengths: Int[Tensor, " row"]
    rows: Int[Tensor, " row"]
    owner: Sequence[int]

    def __call__(self, value: Float[Tensor, "batch pos width"]) -> Float[Tensor, "row width"]:
        picked = value.flatten(0, 1).index_select(0, self.index.to(value.device)).float()
        if len(self.lengths) == len(self.index):
            return picked
        return torch.segment_reduce(picked, "mean", lengths=self.lengths.to(value.device), axis=0)


def capture(
    model: LanguageModel,
    corpus: Corpus,
    *,
    sites: str | Site | Iterable[str | Site] = "resid_post",
    positions: str | Iterable[str] | None = None,
    out: str | Path | None = None,
    dtype: str = "float32",
    max_tokens_per_batch: int = 4096,
    overlong: str = "error",
    padding: str = "right",
) -> ActivationStore:
    """Run a corpus through a model and keep activations.

    Args:
        model: From `affectlens.load_model`.
        corpus: Records; those whose last message is no reply are given the generation prompt.
        sites: See `affectlens.core.sites.expand_sites`.
        positions: See `affectlens.activations.positions`; several at once cost one pass. Default:
            where the design shows its emotion (``last``, ``mean:reply`` or ``mean:text``).
        out: Folder of the store; None keeps it in memory.
        dtype: Of the numbers stored: ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        max_tokens_per_batch: Padded tokens of one forward pass; a longer text runs alone.
        overlong: What to do with texts longer than the context: ``"error"``, ``"truncate"`` (cut
            the text or reply at its end) or ``"skip"``. The store counts them in ``facts``.
        padding: Side on which short texts are filled up; changes nothing but rounding.

    Returns:
        The store, with one row per record and position (``all``: per token), in corpus order.

    Raises:
        UnknownNameError: If a site, position, dtype or policy does not exist.
        DataError: If there is nothing to read at a position, a text is too long, or an activation
            is NaN or infinite.
        ArtefactError: If ``out`` cannot be written. Nothing half-written is left behind.
    """
    wanted = expand_sites(sites, model.n_layers)
    where = parse_positions(
        DEFAULT_POSITIONS[corpus.design] if positions is None else positions,
    )
    torch_dtype(dtype)
    if overlong not in OVERLONG:
        raise unknown("policy for overlong texts", overlong, OVERLONG)
    texts, counts = _texts(model, corpus, where, overlong)
    provenance = Provenance(
        kind="activations",
        model=model.fingerprint,
        model_name=model.name,
        corpus=corpus.fingerprint,
        parameters={
            "sites": [site.hook_name for site in wanted],
            "positions": [position.name for position in where],
            "dtype": dtype,
            "model_dtype": str(model.dtype).removeprefix("torch."),
            "overlong": overlong,
        },
    )
    columns, starts, sizes = _rows(texts, where)
    widths = {site: model.anatomy.width(site.kind) for site in wanted}
    out = None if out is None else Path(out)
    with nullcontext() if out is None else new_folder(out) as folder:
        writer = StoreWriter(widths, sizes, dtype, provenance, folder)
        batches = _batches(texts, max_tokens_per_batch)
        with torch.inference_mode(), progress("Reading activations", len(texts)) as advance:
            for batch in batches:
                _run_batch(model, wanted, where, texts, batch, starts, writer, padding)
                advance(len(batch))
        facts = {"corpus": corpus.name, "design": corpus.design, "records": len(texts), **counts}
        store = writer.finish(row_table(columns), facts)
    return store if out is None else ActivationStore.open(out)


def _texts(
    model: LanguageModel, corpus: Corpus, positions: Sequence[Position], overlong: str
) -> tuple[list[_Text], dict[str, int]]:
    """Render and tokenize; apply the policy for texts beyond the context."""
    texts, counts = list[_Text](), Counter({"truncated": 0, "skipped": 0})
    limit = model.context_length
    for record in corpus:
        chat = record.chat
        prompted = chat[-1]["role"] not in ("assistant", "text")
        rendered = render(model.tokenizer, chat, add_generation_prompt=prompted)
        row = tokenize(model.tokenizer, rendered)
        if len(row) > limit:
            if overlong == "error":
                raise DataError(
                    f"Record {record.id} has {len(row)} tokens, the context of {model.name} "
                    f"{limit}; shorten it, or set overlong to 'truncate' or 'skip'."
                )
            counts["truncated" if overlong == "truncate" else "skipped"] += 1
            if overlong == "skip":
                continue
            row = tokenize(model.tokenizer, rendered, max_length=limit)
        if not len(row):
            raise DataError(f"Record {record.id} has no tokens; drop it.")
        spans = {p.name: p.span(row.spans, len(row), record.id) for p in positions}
        texts.append(_Text(record, row.ids, spans))
    if not texts:
        raise DataError(f"Nothing to read: corpus {corpus.name} has no text that fits the context.")
    return texts, dict(counts)


def _rows(
    texts: Sequence[_Text], positions: Sequence[Position]
) -> tuple[dict[str, list[Any]], dict[str, list[int]], dict[str, int]]:
    """The label table; where each text's rows start, per position; rows per position."""
    columns: dict[str, list[Any]] = {name: [] for name in LABELS}
    starts: dict[str, list[int]] = {position.name: [] for position in positions}
    sizes = dict.fromkeys(starts, 0)
    for position in positions:
        for text in texts:
            span, record = text.spans[position.name], text.record
            pooled = position.pooled
            starts[position.name].append(sizes[position.name])
            sizes[position.name] += 1 if pooled else len(span)
            for token in span[:1] if pooled else span:
                row = (record.id, record.emotion, record.valence, record.group, record.scenario)
                row += (record.theme, record.split, record.role, position.name)
                row += (token, len(span) if pooled else 1)
                for name, value in zip(LABELS, row, strict=True):
                    columns[name].append(value)
    return columns, starts, sizes


def _batches(texts: Sequence[_Text], budget: int) -> Iterator[list[int]]:
    """Indices of texts, longest first, so that a batch too big for the memory fails at once."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i].ids))
    batch = list[int]()
    for i in order:
        if batch and (len(batch) + 1) * len(texts[batch[0]].ids) > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _run_batch(
    model: LanguageModel,
    sites: Sequence[Site],
    positions: Sequence[Position],
    texts: Sequence[_Text],
    batch: Sequence[int],
    starts: Mapping[str, Sequence[int]],
    writer: StoreWriter,
    padding: str,
) -> None:
    ids, mask = model.encode_batch([texts[i].ids for i in batch], side=padding)
    # Where each text starts in the padded batch comes from the mask, whatever the side.
    offsets = [int(offset) for offset in mask.argmax(dim=1)]
    gathers = [_gather(p, texts, batch, offsets, ids.shape[1], starts[p.name]) for p in positions]
    values = _forward(model, ids, mask, sites, gathers)
    for (site, position), value in values.items():
        gather = next(g for g in gathers if g.position == position)
        value = value.cpu()
        _check(value, writer.dtype, site, [texts[batch[i]].record.id for i in gather.owner])
        writer.write(site, position, gather.rows, value)


def _gather(
    position: Position,
    texts: Sequence[_Text],
    batch: Sequence[int],
    offsets: Sequence[int],
    length: int,
    starts: Sequence[int],
) -> _Gather:
    index, lengths, rows, owner = list[int](), list[int](), list[int](), list[int]()
    for b, i in enumerate(batch):
        span = texts[i].spans[position.name]
        first = b * length + offsets[b]
        index += [first + token for token in span]
        new = 1 if position.pooled else len(span)
        lengths += [len(span)] if position.pooled else [1] * new
        rows += range(starts[i], starts[i] + new)
        owner += [b] * new
    return _Gather(
        position.name, torch.tensor(index), torch.tensor(lengths), torch.tensor(rows), owner
    )


def _forward(
    model: LanguageModel,
    ids: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    sites: Sequence[Site],
    gathers: Sequence[_Gather],
) -> Values:
    """One forward pass without logits, up to the deepest site, gathering at every site."""
    values: Values = {}

    def read(site: Site, value: Tensor) -> None:
        for gather in gathers:
            values[site, gather.position] = gather(value)

    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    base = model.anatomy.base
    if not bool(mask[:, 0].all()):  # padded on the left
        if "position_ids" not in inspect.signature(base.forward).parameters:
            raise ModelError(f"{model.name} takes no position ids; use padding='right'.")
        inputs["position_ids"] = model.position_ids(mask)
    with reading(model.anatomy, sites, read, stop_after=deepest(sites)):
        base(**inputs)
    if len(values) != len(sites) * len(gathers):
        missed = next(s for s in sites if (s, gathers[0].position) not in values)
        raise ModelError(f"{model.name} never ran {missed.hook_name}; leave that site out.")
    return values


def _check(value: Tensor, dtype: str, site: Site, records: Sequence[str]) -> None:
    """Refuse what is not a number, or is none any more in the dtype of the store."""
    stored = value.to(torch_dtype(dtype))
    if bool(stored.isfinite().all()):
        return
    finite = value.isfinite().all(dim=1)
    if bool(finite.all()):
        record = records[int((~stored.isfinite().all(dim=1)).nonzero()[0])]
        raise DataError(
            f"{site.hook_name} of record {record} does not fit {dtype} (largest value "
            f"{float(value.abs().max()):.3g}); store bfloat16 or float32."
        )
    record = records[int((~finite).nonzero()[0])]
    raise DataError(
        f"{site.hook_name} of record {record} holds NaN or infinity; load the model in another "
        "dtype, or drop the record."
    )
