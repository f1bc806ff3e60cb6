"""How the directions lie to each other: cosines, map, split-half agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens import plotting as figures
from affectlens.reports.markup import card, finite, number, percent, plot, text

if TYPE_CHECKING:
    from affectlens.plotting import DirectionsSummary
    from affectlens.reports.data import ReportData


def geometry(data: ReportData) -> str:
    """Cosines, map, split-half."""
    parts: list[str] = []
    directions, emotion_map = data.directions, data.emotion_map
    if directions is not None:
        count = len(directions.emotions)
        matrix = np.asarray(directions.cosines, dtype=float)
        off = matrix[~np.eye(count, dtype=bool)]
        finding = ""
        if count > 2:
            pairs = np.where(np.eye(count, dtype=bool), -np.inf, matrix)
            i, j = divmod(int(np.argmax(pairs)), count)
            finding = (
                f"Closest: <b>{text(directions.emotions[i])}</b> and "
                f"<b>{text(directions.emotions[j])}</b> at {number(float(matrix[i, j]))}; "
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
                    figures.cosine_heatmap(directions),
                    "plot-cosines",
                    "Heat map: cosine between emotion directions",
                ),
                finding=finding,
                explain=explain,
            )
        )
    if emotion_map is not None:
        finding = ""
        held = float(emotion_map.explained.double().sum())
        if finite(held):
            finding = f"The two axes hold <b>{percent(held)}</b> of the variance between emotions."
        parts.append(
            card(
                "Map of the emotions",
                plot(
                    figures.emotion_map(emotion_map),
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


def _split_half(directions: DirectionsSummary) -> str:
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
                f"{text(directions.emotions[weakest])} ({number(float(row[weakest]))})."
            )
    return card(
        "Split-half agreement",
        plot(
            figures.split_half(directions),
            "plot-split",
            "Line chart: split-half cosine by layer and emotion",
        ),
        finding=finding,
        explain="<b>Reading it.</b> The same direction fitted twice, on two random halves of "
        "the scenarios: near 1 the data settles it, near 0 it is noise. <b>Limits.</b> "
        "Agreement rises with more data, and both halves share whatever bias the corpus has.",
    )
