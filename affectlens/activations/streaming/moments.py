"""Streaming statistics: one pass over a corpus of any length, and nothing stored but sums.

Memory beyond the model, per site and position, with width W, C classes and the k largest rows:

| what | bytes |
| --- | --- |
| count, mean, variance, RMS | ``16 C W`` |
| covariance of all rows and within classes | ``8 W²`` |
| covariance of each class | ``8 C W²`` |
| the k largest rows of each unit | ``8 k W`` |
| weighted sums, k weightings | ``8 k W`` |
| the rows in flight, 512 at most at a time | about ``40 W`` each |

So a residual stream 4096 wide costs 64 KiB per class and 128 MiB for its covariance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.capture import Sites, prepare
from affectlens.activations.forward.tokenised import Ints
from affectlens.activations.settings import PassOptions, PassSettings
from affectlens.activations.streaming.statistics import ClassKey, Example, Moments, SiteMoments
from affectlens.activations.streaming.sum_sinks import Key, MomentSink, RowIndex, SumSink, row_index
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import Site, expand_sites
from affectlens.core.settings import from_options

if TYPE_CHECKING:
    from affectlens.activations.store.store import ActivationStore
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

__all__ = ["Example", "Moments", "moments", "moments_of", "weighted_sums"]

COLUMNS = ("id", "emotion", "valence", "group", "scenario", "theme", "split", "role")
"""Labels of a record that can make classes."""

_ROWS_READ = 4096  # rows of a store in memory at a time


def moments(
    model: LanguageModel,
    corpus: Corpus,
    *,
    sites: Sites = "resid_post",
    positions: str | Iterable[str] | None = None,
    by: str | Sequence[str] | None = None,
    covariance: bool | Sites = False,
    class_covariance: bool = False,
    top_k: int = 0,
    **options: Unpack[PassOptions],
) -> Moments:
    """Count, mean, variance, RMS, covariance and largest rows of a corpus, per site and class.

    They are those of the rows that `capture` would store in float32, summed up in float64.

    Args:
        model: From `affectlens.load_model`.
        corpus: Records; those whose last message is no reply are given the generation prompt.
        sites: See `affectlens.core.places.expand_sites`.
        positions: See `affectlens.activations.positions`; means leave attention sinks out,
            ``all`` takes them in. Default: where the design shows its emotion.
        by: Labels whose combinations are the classes, for example ``"emotion"`` or
            ``("group", "emotion")``; None for one class.
        covariance: Keep covariances too: True at every site, or of which sites.
        class_covariance: Keep one of each class, not only of all rows and within classes.
        top_k: How many of the largest rows of each unit to keep.
        **options: The fields of `affectlens.activations.PassSettings`: ``max_tokens_per_batch``,
            ``overlong``, ``padding``, ``engine``, ``engine_options``.

    Raises:
        UnknownNameError: If a site, position, label, option, policy or engine does not
            exist.
        DataError: If there is nothing to read at a position, a text is too long, an activation is
            NaN or infinite, or the device has no room for the sums.
    """
    settings = from_options(PassSettings, options, "moments")
    columns = (by,) if isinstance(by, str) else tuple(by or ())
    for name in columns:
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS)
    prepared = prepare(model, corpus, sites=sites, positions=positions, settings=settings)
    plan = prepared.plan
    keys = [tuple(getattr(r, name) for name in columns) for r in plan.texts.records]
    classes, labels = _numbered(keys)
    index = row_index(plan)
    scatter = _scatter(covariance, class_covariance, plan.sites)
    everywhere = dict.fromkeys(index, labels)
    sink = MomentSink(index, everywhere, len(classes), scatter, _checked_top(top_k))
    prepared.run(sink, description="Summing activations")
    provenance = _provenance(prepared.provenance, columns, scatter, top_k)
    return _finished(sink, plan.sites, columns, classes, prepared.facts, provenance)


def moments_of(
    store: ActivationStore,
    *,
    sites: Sites | None = None,
    position: str | None = None,
    by: str | Sequence[str] | None = None,
    covariance: bool | Sites = False,
    class_covariance: bool = False,
    top_k: int = 0,
) -> Moments:
    """The same of rows that are stored already (those kept by `ActivationStore.select`).

    Args:
        store: Activations with labels.
        sites: Which sites; default: all.
        position: Which position; default: the one that suits its design.
        by: Columns of its table; see `moments`.
        covariance, class_covariance, top_k: See `moments`.

    Raises:
        UnknownNameError: If a site, position or column does not exist.
        DataError: If there is no room for the sums.
    """
    chosen, wanted = store.default_position(position), store.default_sites(sites)
    columns = (by,) if isinstance(by, str) else tuple(by or ())
    ids, tokens = (store.column(name, chosen) for name in ("id", "token"))
    keys = list(zip(*(store.column(c, chosen) for c in columns), strict=True))
    classes, labels = _numbered(keys or [()] * len(ids))
    order, numbers = store.storage_order(chosen), np.arange(len(ids))
    index = RowIndex(order, numbers, numbers, np.array(tokens), lambda row: str(ids[row]))
    scatter = _scatter(covariance, class_covariance, wanted)
    sink = MomentSink({chosen: index}, {chosen: labels}, len(classes), scatter, _checked_top(top_k))
    for site in wanted:
        for start in range(0, len(ids), _ROWS_READ):
            rows = order[start : start + _ROWS_READ]
            sink.write(site, chosen, start, store.tensor(site, chosen, rows=rows))
        sink.end()
    provenance = _provenance(store.provenance, columns, scatter, top_k, store.fingerprint)
    return _finished(sink, wanted, columns, classes, store.facts, provenance)


def weighted_sums(
    model: LanguageModel,
    corpus: Corpus,
    weights: Float[Tensor, "k record"],
    *,
    sites: Sites = "resid_post",
    positions: str | Iterable[str] | None = None,
    **options: Unpack[PassOptions],
) -> Mapping[Key, Float[Tensor, "k width"]]:
    """``sum_i w[k, i] x[i]`` over the rows of a corpus, for several weightings in one pass.

    Differences of means, centred means and every other linear functional of the rows are such
    sums; their weights follow from the labels.

    Args:
        model: From `affectlens.load_model`.
        corpus: Records.
        weights: Of each record of the corpus; every row of a record (position ``all``) has its
            weight, a skipped text adds nothing.
        sites, positions: See `moments`.
        **options: The fields of `affectlens.activations.PassSettings`: ``max_tokens_per_batch``,
            ``overlong``, ``padding``, ``engine``, ``engine_options``.

    Returns:
        By site and position, in float64 on the CPU.

    Raises:
        UnknownNameError, DataError: As `moments`; also if there is not one weight per record, or
            one is NaN or infinite.
    """
    settings = from_options(PassSettings, options, "weighted_sums")
    if weights.ndim != 2 or weights.shape[1] != len(corpus) or not bool(weights.isfinite().all()):
        raise DataError(
            f"Give finite weights [k, {len(corpus)}], one per record, not {list(weights.shape)}."
        )
    prepared = prepare(model, corpus, sites=sites, positions=positions, settings=settings)
    number = {record.id: i for i, record in enumerate(corpus)}
    texts = torch.tensor([number[record.id] for record in prepared.plan.texts.records])
    sink = SumSink(
        row_index(prepared.plan), lambda items: weights[:, texts[torch.from_numpy(items)]]
    )
    prepared.run(sink, description="Summing activations")
    return {key: sums.total.cpu() for key, sums in sink.sums.items()}


def _numbered(keys: Sequence[ClassKey]) -> tuple[tuple[ClassKey, ...], Ints]:
    """The classes in order of appearance, and the number of each item's."""
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbers), np.array([numbers[key] for key in keys], np.int64)


def _scatter(
    covariance: bool | Sites, class_covariance: bool, sites: Sequence[Site]
) -> dict[Site, str]:
    """Which products of deviations to keep at which sites."""
    if covariance is False:
        if class_covariance:
            raise DataError("class_covariance needs covariance=True, or the sites to keep it of.")
        return {}
    wanted = sites
    if covariance is not True:
        wanted = expand_sites(covariance, 1 + max(site.layer for site in sites))
        for site in wanted:
            if site not in sites:
                raise unknown("site", site.hook_name, [s.hook_name for s in sites])
    return dict.fromkeys(wanted, "class" if class_covariance else "within")


def _checked_top(top_k: int) -> int:
    if top_k < 0:
        raise DataError(f"top_k is how many rows to keep of each unit: 0 or more, not {top_k}.")
    return top_k


def _provenance(
    rows: Provenance,
    by: Sequence[str],
    scatter: Mapping[Site, str],
    top_k: int,
    fingerprint: str | None = None,
) -> Provenance:
    return Provenance(
        kind="moments",
        model=rows.model,
        model_name=rows.model_name,
        corpus=rows.corpus,
        parameters={
            "by": list(by),
            "covariance": {site.hook_name: what for site, what in scatter.items()},
            "top_k": top_k,
        },
        inputs={"activations": fingerprint or rows.fingerprint},
    )


def _finished(
    sink: MomentSink,
    sites: tuple[Site, ...],
    by: tuple[str, ...],
    classes: tuple[ClassKey, ...],
    facts: Mapping[str, Any],
    provenance: Provenance,
) -> Moments:
    """The sums on the CPU, with names."""
    records: dict[str, int] = {}
    kept = dict[Key, SiteMoments]()
    counts = dict[str, Tensor]()
    for (site, position), sums in sink.sums.items():
        counts[position] = sums.count[:, 0].long().cpu()
        top: dict[str, Tensor] = {}
        if (site, position) in sink.top:
            values, rows = sink.top[site, position].result()
            index = sink.index[position]
            items, tokens = index.of_corpus(rows.numpy())
            unique, where = np.unique(items, return_inverse=True)
            numbers = [records.setdefault(index.id_of(int(i)), len(records)) for i in unique]
            top["top_values"] = values
            top["top_records"] = torch.tensor(numbers)[where.reshape(items.shape)]
            top["top_tokens"] = torch.from_numpy(tokens.astype(np.int64))
        scatter = sums.scatter
        if scatter is not None:
            scatter = scatter.cpu()
            scatter = (scatter + scatter.mT) / 2  # as exactly symmetric as it is meant to be
        kept[site, position] = SiteMoments(
            sums.mean.cpu(), sums.deviation.cpu(), sums.row_rms.cpu(), scatter, **top
        )
    return Moments(
        sites=sites,
        positions=tuple(sink.index),
        by=by,
        classes=classes,
        counts=counts,
        sums=kept,
        records=tuple(records),
        facts=dict(facts),
        provenance=provenance,
    )
