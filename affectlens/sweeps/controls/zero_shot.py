"""The model asked outright: how does the writer feel? Its answer is restricted to the labels.

The options are put in two orders, one the other's reverse, so that a liking for the first or the
last counts for half at most. *Coverage* is the probability of all labels together: where it is
small, the model would rather have said something else.
"""

from __future__ import annotations

import numpy as np
import torch

from affectlens.sweeps.controls.base import Control, Row, Setting, some_rows

MOST = 200
"""Texts that are asked about, spread over the held-out rows."""


def zero_shot(setting: Setting) -> list[Row]:
    """The likeliest label of each text, beside the probe on the same texts."""
    from affectlens.circuits.tasks.recognition import asked_about
    from affectlens.models.generation.likelihood import continuation_nll

    design, model = setting.design, setting.reader.model
    classes = list(design.classes)
    rows = np.flatnonzero(design.held.numpy())
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int))
    orders = (tuple(classes), tuple(reversed(classes)))
    asked = [
        row
        for i in chosen
        for order in asked_about(model, setting.records[rows[i]].text, orders, classes)
        for row in order
    ]
    nll = continuation_nll(model, [p for p, _ in asked], [t for _, t in asked])
    logs = -nll * np.array([len(told) for _, told in asked])
    each = np.exp(logs.reshape(len(chosen), len(orders), len(classes)))
    shares = (each / each.sum(2, keepdims=True)).mean(1)
    coverage = float(each.sum(2).mean())
    mine = some_rows(setting.held, chosen)
    theirs = some_rows(setting.held, chosen, torch.tensor(np.log(shares + 1e-12))[None].float())
    note = f"{len(chosen)} texts, {len(orders)} orders; coverage {coverage:.2g}"
    found = setting.beside("zero_shot", theirs, note=note, mine=mine)
    return [*found, setting.row("zero_shot", "coverage", coverage, note=note)]


ZERO_SHOT = Control(
    "zero_shot",
    "the model asked outright, its answer restricted to the labels, with coverage",
    "Why probe, if the model can be asked?",
    zero_shot,
)
