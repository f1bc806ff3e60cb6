"""The transfer matrix: probes of each corpus on every other, at every site.

A probe that reads the emotion and not its corpus reads both. The labels must be the same by name;
where they are not they are named alike before (``names``), or the pair is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch

from affectlens.core.errors import DataError
from affectlens.probes.held_out import HeldOut
from affectlens.probes.number_sweep import NumberSweep
from affectlens.probes.scores import scores
from affectlens.sweeps.controls.base import Row, Setting


def check_labels(first: Setting, second: Setting) -> None:
    """Refuse label sets that are not the same.

    Raises:
        DataError: Naming the labels that one has and the other has not.
    """
    a, b = (set(one.design.classes) for one in (first, second))
    if first.numbers != second.numbers or a != b:
        only = sorted(a ^ b)
        raise DataError(
            f"{first.cell.corpus} and {second.cell.corpus} have unlike labels of "
            f"{first.cell.target} ({', '.join(only) or 'words and numbers'}); name them alike with "
            "--map LABEL=LABEL, or leave some out with --map LABEL=."
        )


def transfer_rows(settings: Sequence[Setting]) -> list[Row]:
    """Fit on one corpus, test on the held-out rows of another, at every site.

    On its own corpus a probe has the score of its sweep.

    Raises:
        DataError: If two corpora have unlike labels.
    """
    rows: list[Row] = []
    for first, second in product(settings, settings):
        if _kind(first) != _kind(second):
            continue
        check_labels(first, second)
        rows += _pair(first, second)
    return rows


def _kind(setting: Setting) -> tuple[str, ...]:
    cell = setting.cell
    return cell.target, cell.probe, cell.kind


def _pair(first: Setting, second: Setting) -> list[Row]:
    cell, own = first.cell, first is second
    held = second.held if own else _said(first, second)
    found = scores(held, draws=second.fitting.draws, random=second.fitting.seed)
    i = found.names.index(cell.measure)
    names = {**cell.name, "trained_on": cell.corpus, "tested_on": second.cell.corpus}
    del names["corpus"]
    return [
        {
            **names,
            "site": site.hook_name,
            "layer": site.layer,
            "chosen": place == cell.best,
            "measure": cell.measure,
            "value": float(found.value[i, place]),
            "low": float(found.low[i, place]),
            "high": float(found.high[i, place]),
            "rows": len(held),
        }
        for place, site in enumerate(cell.sweep.sites)
    ]


def _said(first: Setting, second: Setting) -> HeldOut:
    """What the probes of one corpus say of the held-out rows of another."""
    design, sweep = second.design, first.cell.sweep
    outputs: list[torch.Tensor] = []
    for i, site in enumerate(sweep.sites):
        x = second.rows.read([site], design)[0][design.held]
        if isinstance(sweep, NumberSweep):
            outputs.append((x @ sweep.weights[i] + sweep.bias[i])[:, None])
            continue
        said = x @ sweep.weights[i].T + sweep.bias[i]
        # Columns in the order of the other corpus's classes.
        outputs.append(said[:, [sweep.classes.index(name) for name in design.classes]])
    held = second.held
    stacked = torch.stack(outputs)
    return HeldOut(held.ids, held.groups, held.truth, stacked, held.classes, first.probe.link)
