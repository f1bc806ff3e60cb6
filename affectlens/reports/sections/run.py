"""The sections of the page; each returns its HTML, or "" when its data is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens import plotting as figures
from affectlens.reports.markup import card, dot, number, percent, plot, text

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from affectlens.reports.data import CircuitData, Directions, ReportData


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
    figure = figures.probe_accuracy(
        probes.layers, accuracy, low, high, probes.chance, best, probes.control
    )
    label = "Line chart: probe accuracy by layer"
    return card(
        "Emotion read by layer",
        plot(figure, "plot-probes", label),
        finding=finding,
        explain=explain,
    )


def geometry(data: ReportData) -> str:
    """Cosines, map, split-half."""
    parts: list[str] = []
    directions, emotion_map = data.directions, data.emotion_map
    if directions is not None:
        count = len(directions.labels)
        matrix = np.asarray(directions.cosines, dtype=float)
        off = matrix[~np.eye(count, dtype=bool)]
        finding = ""
        if count > 2:
            pairs = np.where(np.eye(count, dtype=bool), -np.inf, matrix)
            i, j = divmod(int(np.argmax(pairs)), count)
            finding = (
                f"Closest: <b>{text(directions.labels[i])}</b> and "
                f"<b>{text(directions.labels[j])}</b> at {number(float(matrix[i, j]))}; "
                f"mean off the diagonal {number(float(off.mean()))}."
            )
        explain = "<b>Reading it.</b> 1 is the same direction, 0 unrelated, −1 opposite. "
        if count > 1:
            explain += (
                "<b>Limits.</b> Directions are centred over the emotions, so the cosines average "
                f"about −1/({count}−1) = {number(-1 / (count - 1))} by construction: compare "
                "with that, not with 0."
            )
        parts.append(
            card(
                f"Cosine between directions, layer {directions.layer}",
                plot(
                    figures.cosine_heatmap(directions.labels, matrix),
                    "plot-cosines",
                    "Heat map: cosine between emotion directions",
                ),
                finding=finding,
                explain=explain,
            )
        )
    if emotion_map is not None:
        finding = ""
        if emotion_map.explained is not None:
            finding = (
                f"The two axes hold <b>{percent(float(np.sum(emotion_map.explained)))}</b> of the "
                "variance between emotions."
            )
        parts.append(
            card(
                "Map of the emotions",
                plot(
                    figures.emotion_map(emotion_map.labels, emotion_map.xy, emotion_map.explained),
                    "plot-map",
                    "Scatter plot: emotions on two principal components",
                ),
                finding=finding,
                explain="<b>Reading it.</b> The directions, seen along the two axes on which they "
                "differ most. Axes have no fixed sign or meaning; often one resembles "
                "pleasantness. <b>Limits.</b> Two dimensions are a shadow: what looks close may "
                "be far apart on the axes not shown.",
            )
        )
    out = "".join(parts)
    if len(parts) == 2:
        out = f'<div class="pair">{out}</div>'
    return out + ("" if directions is None else _split_half(directions))


def _split_half(directions: Directions) -> str:
    if directions.split_half is None:
        return ""
    halves = np.asarray(directions.split_half, dtype=float)
    finding = ""
    if directions.layer in directions.layers:
        row = halves[list(directions.layers).index(directions.layer)]
        if np.isfinite(row).any():
            weakest = int(np.nanargmin(row))
            finding = (
                f"At layer {directions.layer} the halves agree to "
                f"<b>{number(float(np.nanmean(row)))}</b> on average, least for "
                f"{text(directions.labels[weakest])} ({number(float(row[weakest]))})."
            )
    return card(
        "Split-half agreement",
        plot(
            figures.split_half(directions.layers, directions.labels, halves),
            "plot-split",
            "Line chart: split-half cosine by layer and emotion",
        ),
        finding=finding,
        explain="<b>Reading it.</b> The same direction fitted twice, on two random halves of "
        "the scenarios: near 1 the data settles it, near 0 it is noise. <b>Limits.</b> "
        "Agreement rises with more data, and both halves share whatever bias the corpus has.",
    )


def _maps(
    circuit: CircuitData, values: ArrayLike, unit: str, title: str, name: str, explain: str
) -> str:
    array = np.asarray(values, dtype=float)
    limit = _robust_limit(array)
    cells = "".join(
        f"<div><h4>{dot(label, index)}{text(label)}</h4>"
        + plot(
            figures.contribution_map(
                array[index], unit=unit, limit=limit, layers=circuit.layers, scale=False
            ),
            f"plot-{name}-{index}",
            f"Heat map: contribution by layer and {unit}, {label}",
        )
        + "</div>"
        for index, label in enumerate(circuit.labels)
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
                    figures.influence_profile(found.layers, found.labels, influence),
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
        count = max(1, len(found.labels))
        parts.append(
            card(
                "Where the units are",
                plot(
                    figures.allocation_bars(found.layers, found.labels, counts),
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
                found.heads,
                "head",
                "What each attention head writes",
                "heads",
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
                found.neurons,
                "neuron rank",
                "What the strongest neurons write",
                "neurons",
                "<b>Reading it.</b> Per layer the neurons are sorted by contribution, strongest "
                "left: a row that fades quickly means that few neurons carry the emotion there. "
                "<b>Limits.</b> The same rank is another neuron in every layer and emotion.",
            )
        )
    if found.overlap is not None and found.overlap_chance is not None:
        labels = found.labels
        seen = np.asarray(found.overlap, dtype=float)
        chance = np.asarray(found.overlap_chance, dtype=float)
        off = ~np.eye(len(labels), dtype=bool)
        base = float(chance[off].mean()) if off.any() else 0.0
        ratio = float(seen[off].mean()) / base if base else float("nan")
        parts.append(
            card(
                "Units shared between emotions",
                plot(
                    figures.overlap_heatmap(labels, seen, chance),
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
