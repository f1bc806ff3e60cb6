"""Probe accuracy by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens import plotting as figures
from affectlens.reports.markup import card, percent, plot, text

if TYPE_CHECKING:
    from affectlens.reports.data import ReportData


def reading(data: ReportData) -> str:
    """Probe accuracy by layer."""
    probes = data.probes
    if probes is None:
        return ""
    accuracy, low, high = (
        np.asarray(v, dtype=float) for v in (probes.accuracy, probes.low, probes.high)
    )
    best = probes.best
    finding = (
        f"Best at layer {probes.layers[best]}: <b>{percent(accuracy[best], 1)}</b> of unseen texts "
        f"(95 % interval {percent(low[best], 1)} to {percent(high[best], 1)}); guessing gives "
        f"{percent(probes.chance, 1)}."
    )
    if probes.baselines:
        others = ", ".join(
            f"{text(name)} {percent(value, 1)}" for name, value in probes.baselines.items()
        )
        finding += f" For comparison: {others}."
    explain = (
        "<b>Reading it.</b> At every layer a linear classifier guesses the emotion from the "
        f"model's hidden state ({text(probes.site)}). Texts of one scenario are never in both "
        "training and test data. <b>Limits.</b> A high value says the emotion can be read here, "
        "not that the model uses it, and the best layer to read is rarely the best to write."
    )
    if probes.control is not None:
        explain += (
            " The control task has its labels permuted: the gap above it is what the probe found "
            "in the model rather than memorised."
        )
    figure = figures.probe_accuracy(probes)
    label = "Line chart: probe accuracy by layer"
    return card(
        "Emotion read by layer",
        plot(figure, "plot-probes", label),
        finding=finding,
        explain=explain,
    )
