"""Unit efficiency: what is heard by number of units, one line for each choice of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.circuits.evidence.budgets import CIRCUIT, RANDOM, TOP, UNIFORM
from affectlens.circuits.evidence.efficiency import ALL, EfficiencyCurve
from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLES = {
    "accuracy": "Judged as the target emotion",
    "masked_accuracy": "The same, feeling words masked",
}
_SHADES = {CIRCUIT: "circuit", TOP: "residual", UNIFORM: "prompted", RANDOM: "unsteered"}


def efficiency_curves(curve: EfficiencyCurve, emotion: str = ALL) -> go.Figure:
    """Accuracy, masked accuracy and perplexity ratio over the number of units.

    Random units are a band from their lowest to their highest draw, with their mean.

    Args:
        curve: What was measured.
        emotion: A target, or ``"all"``.

    Raises:
        UnknownNameError: If there is no such target.
    """
    from plotly.subplots import make_subplots

    titles = (*_TITLES.values(), "Perplexity ratio (1 = as fluent as unsteered)")
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.08, subplot_titles=titles
    )
    style.panel_titles(figure)
    shown = {
        key: np.array([[_value(row, key) for row in rows] for rows in _rows(curve, emotion)])
        for key in (*_TITLES, "perplexity_ratio")
    }
    choices = [i for i in range(len(curve.arms)) if i not in curve.draws]
    for row, (key, values) in enumerate(shown.items(), start=1):
        if curve.draws:
            _band(figure, curve, values[list(curve.draws)], row)
        for i in choices:
            arm = curve.arms[i]
            _line(figure, curve, arm, values[i], row, dash=style.DASHES[i % len(style.DASHES)])
        if key in _TITLES:
            figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03], row=row, col=1)
    figure.update_xaxes(
        **style.axis(showgrid=False),
        type="log",
        tickvals=list(curve.counts),
        ticktext=[str(count) for count in curve.counts],
    )
    figure.update_xaxes(title_text="units per emotion", row=3, col=1)
    figure.update_yaxes(**style.axis(), nticks=6)
    style.finish(figure, 640, legend=True)
    figure.update_layout(margin_t=66, legend_y=1.05)
    return figure


def _rows(curve: EfficiencyCurve, emotion: str) -> list[list[dict[str, object]]]:
    curve.area(curve.arms[0], curve.arms[0], emotion=emotion)  # refuses unknown targets in words
    rows = [row for row in curve.table_rows() if row["emotion"] == emotion]
    return [[row for row in rows if row["arm"] == arm] for arm in curve.arms]


def _value(row: dict[str, Any], key: str) -> float:
    return float(row[key])


def _band(figure: go.Figure, curve: EfficiencyCurve, values: np.ndarray, row: int) -> None:
    colour = style.arm_colour(_SHADES[RANDOM])
    for ends, fill in ((values.max(0), None), (values.min(0), "tonexty")):
        figure.add_scatter(
            x=curve.counts,
            y=ends.tolist(),
            mode="lines",
            line={"width": 0},
            fill=fill,
            fillcolor=style.fade(colour),
            hoverinfo="skip",
            showlegend=False,
            row=row,
            col=1,
        )
    _line(figure, curve, f"{RANDOM} ({len(values)})", values.mean(0), row, dash="dot")


def _line(
    figure: go.Figure, curve: EfficiencyCurve, arm: str, values: np.ndarray, row: int, *, dash: str
) -> None:
    colour = style.arm_colour(_SHADES.get(arm.partition(" ")[0], ""))
    shown = "%{y:.0%}" if row < 3 else "%{y:.2f}×"
    figure.add_scatter(
        x=curve.counts,
        y=values.tolist(),
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": dash},
        marker={"color": colour, "size": 6},
        name=arm,
        legendgroup=arm,
        showlegend=row == 1,
        hovertemplate=f"{arm}, %{{x}} units: {shown}<extra></extra>",
        row=row,
        col=1,
    )
