"""The keyword test: what is left of the probe when the words for feelings are gone.

Held-out texts are read as they are and with every entry of the feeling lexicon taken out, by the
same probes; and the probe reads the authored *vignettes*, which tell of what happens without a word
that names or expresses a feeling. A probe that only matched words falls to chance on both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import AffectLensError
from affectlens.datasets import load
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.probes.crossval import fit_probes
from affectlens.probes.held_out import HeldOut
from affectlens.probes.scores import scores
from affectlens.sweeps.controls.base import Control, Row, Setting, some_rows

if TYPE_CHECKING:
    from affectlens.activations import ActivationStore

_VIGNETTES = "vignettes"


def keywords(setting: Setting) -> list[Row]:
    """At the chosen site: texts as they are, masked, and the keyword-free vignettes."""
    rows = _masked(setting)
    return rows if setting.numbers else [*rows, *_vignettes(setting)]


def masked_corpus(corpus: Corpus, ids: set[str]) -> tuple[Corpus | None, int]:
    """Some texts without their feeling words, and how many that changes; None if none is left."""
    from affectlens.evaluation.naming import mask_feelings

    kept: list[Record] = []
    changed = 0
    for record in corpus:
        if record.id not in ids:
            continue
        last = record.messages[-1]
        text = mask_feelings(last.content)
        if text:
            changed += text != last.content
            told = (*record.messages[:-1], Message(last.role, text))
            kept.append(replace(record, messages=told))
    return (replace(corpus, records=tuple(kept)) if kept else None), changed


def outputs_of(
    setting: Setting, x: Float[Tensor, "n d"], rows: list[int]
) -> Float[Tensor, "n output"]:
    """What probes that have not seen the group of a row say of another version of it.

    Args:
        setting: Whose chosen site, folds and penalty.
        x: Activations of the other versions.
        rows: Which row of the design each is a version of.
    """
    design, best = setting.design, setting.cell.best
    site = setting.sites[best]
    penalty = torch.tensor([[setting.cell.sweep.penalty[best]]])
    masks = design.without_each if design.nested else design.fit[None].float()
    own = setting.rows.read([site], design)
    fits = fit_probes(own, design, penalty, masks, setting.probe)
    said = fits.logits(x[None])[0, :, 0]  # [fit, n, output]
    fold = design.fold[rows] if design.nested else torch.zeros(len(rows), dtype=torch.long)
    return said[fold, torch.arange(len(rows))]


def _masked(setting: Setting) -> list[Row]:
    design = setting.design
    ids: list[str] = setting.store.column("id", setting.position)
    own = [ids[row] for row in design.rows.tolist()]
    held = [i for i in range(len(own)) if bool(design.held[i])]
    corpus, changed = masked_corpus(setting.texts.bare, {own[i] for i in held})
    if corpus is None:
        return [setting.row("keywords", "masked", float("nan"), note="no text is left")]
    store = setting.reader.read(corpus, f"{setting.texts.name}-masked")
    site = setting.sites[setting.cell.best]
    versions: dict[str, list[int]] = {}
    for place, id_ in enumerate(store.column("id", setting.position)):
        versions.setdefault(id_, []).append(place)
    # Of a text with a row per token the versions differ in length: only texts of one row take part.
    rows = [i for i in held if len(versions.get(own[i], ())) == 1 and own.count(own[i]) == 1]
    if not rows:
        note = "texts with a row per token have no version without their words, token by token"
        return [setting.row("keywords", "masked", float("nan"), note=note)]
    places = [versions[own[i]][0] for i in rows]
    x = setting.rows.read([site], design)[0]
    whole = outputs_of(setting, x[rows], rows)
    masked = outputs_of(setting, store.to_torch(site, setting.position)[places], rows)
    within = {row: place for place, row in enumerate(held)}
    chosen = np.array([within[row] for row in rows])
    plain = some_rows(setting.held, chosen, whole[None])
    without = some_rows(setting.held, chosen, masked[None])
    measure, draws = setting.cell.measure, setting.fitting.draws
    note = f"{len(rows)} texts, {changed} of them with feeling words"
    out = [_line(setting, "as they are", plain, note), _line(setting, "masked", without, note)]
    fall = plain.compare(0, without, 0, draws=draws)
    name = f"{measure} lost by masking" if not setting.numbers else "squared error more by masking"
    out.append(
        setting.row("keywords", name, fall.mean, site=site.hook_name, low=fall.low, high=fall.high,
                    p=fall.p, note=note)
    )  # fmt: skip
    return out


def _vignettes(setting: Setting) -> list[Row]:
    design = setting.design
    corpus = load(_VIGNETTES)
    shared = [name for name in design.classes if name in corpus.labels()]
    if len(shared) < 2:
        note = f"labels unlike those of the vignettes ({', '.join(corpus.labels())})"
        return [setting.row("keywords", _VIGNETTES, float("nan"), note=note)]
    if setting.texts.name == _VIGNETTES:
        return []
    some = corpus.filter(emotion=shared)
    try:
        store = setting.reader.read(some, _VIGNETTES)
    except AffectLensError as error:
        return [setting.row("keywords", _VIGNETTES, float("nan"), note=f"not read: {error}")]
    return [_line(setting, _VIGNETTES, _read(setting, store), "the probe of all fitting rows")]


def _read(setting: Setting, store: ActivationStore) -> HeldOut:
    """What the sweep's probe says of other texts."""
    design, cell = setting.design, setting.cell
    position = setting.position if setting.position in store.positions else None
    site = cell.sweep.sites[cell.best]
    sweep = cell.sweep
    x = store.to_torch(site, position)
    said = x @ sweep.weights[cell.best].T + sweep.bias[cell.best]
    labels: list[str] = store.column("emotion", position)
    truth = torch.tensor([design.classes.index(label) for label in labels])
    ids, groups = store.column("id", position), store.column("scenario", position)
    link = setting.probe.link
    return HeldOut(tuple(ids), tuple(groups), truth, said[None], design.classes, link)


def _line(setting: Setting, name: str, held: HeldOut, note: str) -> Row:
    measure = setting.cell.measure
    found = scores(held, draws=setting.fitting.draws, random=setting.fitting.seed)
    low, high = found.interval(measure)[0]
    return setting.row(
        "keywords",
        f"{measure}, {name}",
        found[measure][0],
        site=setting.sites[setting.cell.best].hook_name,
        low=float(low),
        high=float(high),
        note=note,
    )


KEYWORDS = Control(
    "keywords",
    "texts as they are, with feeling words masked, and the keyword-free vignettes",
    "The probe matches words for feelings.",
    keywords,
    numbers=True,
)
