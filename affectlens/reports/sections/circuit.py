"""Which units write an emotion, where they are, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens import plotting as figures
from affectlens.plotting.circuit import COLUMNS
from affectlens.reports.markup import card, dot, number, plot, text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from affectlens.plotting import CircuitSummary
    from affectlens.reports.data import ReportData


def _maps(circuit: CircuitSummary, kind: str, title: str, explain: str) -> str:
    unit = COLUMNS[kind]
    limit = _robust_limit(np.asarray(getattr(circuit, kind), dtype=float))
    cells = "".join(
        f"<div><h4>{dot(label, index)}{text(label)}</h4>"
        + plot(
            figures.contribution_map(circuit, label, kind, limit=limit, scale=False),
            f"plot-{kind}-{index}",
            f"Heat map: contribution by layer and {unit}, {label}",
        )
        + "</div>"
        for index, label in enumerate(circuit.emotions)
    )
    scale = (
        f'<div class="scale"><span>{number(-limit)}</span><i></i><span>+{number(limit)}</span>'
        "<span>against / towards the emotion; stronger values are shown in the end colours"
        "</span></div>"
    )
    return card(title, scale + f'<div class="many">{cells}</div>', explain=explain)


def _robust_limit(array: NDArray[np.float64]) -> float:
    """End of the shared colour scale: a few outliers must not bleach everything else."""
    magnitude = np.abs(array[np.isfinite(array)])
    if not magnitude.size:
        return 1.0
    return float(np.quantile(magnitude, 0.99)) or float(magnitude.max()) or 1.0


def circuit(data: ReportData) -> str:
    """Contribution maps, influence, allocation, overlap."""
    found = data.circuit
    if found is None:
        return ""
    parts: list[str] = []
    if found.influence is not None:
        influence = np.asarray(found.influence, dtype=float)
        mean = np.nan_to_num(influence).mean(axis=0)
        layer, sublayer = divmod(int(mean.argmax()), 2)
        parts.append(
            card(
                "Influence of each sublayer",
                plot(
                    figures.influence_profile(found),
                    "plot-influence",
                    "Line charts: influence of attention and MLP by layer",
                ),
                finding=f"Strongest on average: the {('attention', 'MLP')[sublayer]} of layer "
                f"<b>{found.layers[layer]}</b>.",
                explain="<b>Reading it.</b> A small nudge along the emotion is added to one "
                "sublayer's output on a neutral prompt; the curve is how much of it arrives at "
                "the late direction, per unit added. <b>Limits.</b> The reference is itself a "
                "direction of a late layer, so influence near it is partly circular; negative "
                "values get no units.",
            )
        )
    if found.counts is not None:
        counts = np.asarray(found.counts)
        heads, neurons = (int(v) for v in counts.sum(axis=(0, 1)))
        count = max(1, len(found.emotions))
        parts.append(
            card(
                "Where the units are",
                plot(
                    figures.allocation_bars(found),
                    "plot-allocation",
                    "Stacked bars: units chosen per layer and emotion",
                ),
                finding=f"<b>{neurons / count:.0f} neurons</b> and <b>{heads / count:.0f} "
                "heads</b> per emotion on average.",
                explain="<b>Reading it.</b> The budget of units is shared out by influence, with "
                "a floor in every layer and a cap on any one. <b>Limits.</b> The total is a "
                "setting, not a finding: it does not say how many units an emotion needs.",
            )
        )
    if found.heads is not None:
        parts.append(
            _maps(
                found,
                "heads",
                "What each attention head writes",
                "<b>Reading it.</b> How far each head's output points along the emotion's "
                "direction of its own layer, on average over the corpus. It is exact: heads and "
                "bias add up to the attention output. <b>Limits.</b> It counts what a head writes "
                "directly, not what later layers do with it.",
            )
        )
    if found.neurons is not None:
        parts.append(
            _maps(
                found,
                "neurons",
                "What the strongest neurons write",
                "<b>Reading it.</b> Per layer the neurons are sorted by contribution, strongest "
                "left: a row that fades quickly means that few neurons carry the emotion there. "
                "<b>Limits.</b> The same rank is another neuron in every layer and emotion.",
            )
        )
    if found.overlap is not None:
        seen, chance = found.overlap.jaccard, found.overlap.expected
        off = ~np.eye(len(found.emotions), dtype=bool)
        base = float(chance[off].mean()) if off.any() else 0.0
        ratio = float(seen[off].mean()) / base if base else float("nan")
        parts.append(
            card(
                "Units shared between emotions",
                plot(
                    figures.overlap_heatmap(found),
                    "plot-overlap",
                    "Heat map: shared units relative to chance",
                ),
                finding=f"Two circuits share <b>{number(ratio, 1)}×</b> as many units as random "
                "ones of the same shape.",
                explain="<b>Reading it.</b> 1× is what circuits with the same number of units in "
                "the same layers share by chance; above it emotions reuse units, below it they "
                "avoid each other's. <b>Limits.</b> Raw overlap means nothing without that "
                "chance level: small layers and large budgets overlap anyway.",
                wide=False,
            )
        )
    return "".join(parts)
