"""What a linear probe can read at each depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens.plotting import style
from affectlens.plotting.summaries import SweepSummary

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from affectlens.probes import Sweep


def probe_accuracy(sweep: Sweep | SweepSummary) -> go.Figure:
    """Held-out accuracy by layer, with its confidence band, chance and the control task."""
    import plotly.graph_objects as go

    found = sweep if isinstance(sweep, SweepSummary) else SweepSummary.of(sweep)
    best, chance, control = found.best, found.chance, found.control
    x = [int(layer) for layer in found.layers]
    y, bottom, top = (
        np.asarray(v, dtype=float).tolist() for v in (found.accuracy, found.low, found.high)
    )
    line = style.INK
    figure = go.Figure()
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*top, *reversed(bottom)],
        fill="toself",
        fillcolor=style.fade(line),
        line={"width": 0},
        hoverinfo="skip",
        name="95 % interval",
    )
    figure.add_scatter(
        x=x,
        y=y,
        customdata=list(zip(bottom, top, strict=True)),
        mode="lines+markers",
        line={"color": line, "width": 2.5},
        marker={"color": line, "size": 5},
        name="probe",
        hovertemplate="layer %{x}: %{y:.1%}<br>95 % %{customdata[0]:.1%} to "
        "%{customdata[1]:.1%}<extra></extra>",
    )
    if control is not None:
        figure.add_scatter(
            x=x,
            y=np.asarray(control, dtype=float).tolist(),
            mode="lines",
            line={"color": style.MUTED, "width": 1.5, "dash": "dot"},
            name="control task",
            hovertemplate="layer %{x}: control %{y:.1%}<extra></extra>",
        )
    figure.add_scatter(
        x=[x[0], x[-1]],
        y=[chance, chance],
        mode="lines",
        line={"color": style.MUTED, "width": 1.5, "dash": "dash"},
        name=f"chance {chance:.0%}",
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=[x[best]],
        y=[y[best]],
        mode="markers",
        marker={"symbol": "circle-open", "size": 14, "color": line, "line": {"width": 2.5}},
        name="chosen",
        showlegend=False,
        hoverinfo="skip",
    )
    figure.add_annotation(
        x=x[best],
        y=y[best],
        text=f"<b>layer {x[best]}: {y[best]:.0%}</b>",
        showarrow=False,
        yshift=-34 if y[best] > 0.5 else 34,
        font={"size": 13, "color": style.INK},
    )
    figure.update_xaxes(**style.axis("layer", showgrid=False))
    figure.update_yaxes(**style.axis("accuracy", tickformat=".0%", range=[0, 1.02]))
    return style.finish(figure, 360, legend=True)
