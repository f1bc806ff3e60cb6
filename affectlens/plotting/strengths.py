"""What strength does: accuracy against fluency, on the tuning scenarios."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from affectlens.evaluation.tuning import StrengthPoint, pooled_by_strength
from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go


ALL = "all"
"""Name of the line over all emotions."""


def strength_curves(
    points: Sequence[StrengthPoint], chosen: Mapping[str, float] | None = None
) -> go.Figure:
    """Accuracy and perplexity ratio over steering strength, one line per emotion and one of all.

    Args:
        points: The measurements of one arm, in any order.
        chosen: The strength picked per emotion; drawn as a ring.
    """
    from plotly.subplots import make_subplots

    titles = ("Judged as the target emotion", "Perplexity ratio (1 = as fluent as unsteered)")
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12, subplot_titles=titles
    )
    style.panel_titles(figure)
    labels = list(dict.fromkeys(point.emotion for point in points))
    if len(labels) > 1:
        labels.append(ALL)
        points = [*points, *_pooled(points)]
    for index, label in enumerate(labels):
        own = sorted((p for p in points if p.emotion == label), key=lambda p: p.strength)
        colour = style.emotion_colour(label, index) if label != ALL else style.INK
        picked = (chosen or {}).get(label)
        for row, values in enumerate(
            ([p.accuracy for p in own], [p.perplexity_ratio for p in own]), start=1
        ):
            ring = [picked is not None and abs(p.strength - picked) < 1e-9 for p in own]
            figure.add_scatter(
                x=[p.strength for p in own],
                y=values,
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={
                    "color": colour,
                    "symbol": style.emotion_symbol(label, index),
                    "opacity": 1,
                    "size": [12 if r else 6 for r in ring],
                    "line": {"width": [2 if r else 0 for r in ring], "color": style.INK},
                },
                name=label,
                legendgroup=label,
                showlegend=row == 1,
                hovertemplate=f"{label}, strength %{{x}}: "
                + ("%{y:.0%}" if row == 1 else "%{y:.2f}×")
                + "<extra></extra>",
                row=row,
                col=1,
            )
    figure.update_xaxes(**style.axis(showgrid=False))
    figure.update_xaxes(**style.axis("strength", showgrid=False), row=2, col=1)
    figure.update_yaxes(**style.axis(), nticks=6)
    figure.update_yaxes(tickformat=".0%", range=[-0.03, 1.03], row=1, col=1)
    marks = [0.5, 1, 2, 5, 10, 20, 50, 100, 1000]
    figure.update_yaxes(
        type="log", tickvals=marks, ticktext=[f"{m:g}×" for m in marks], row=2, col=1
    )
    style.finish(figure, 480, legend=True)
    figure.update_layout(margin_t=66, legend_y=1.075)
    return figure


def _pooled(points: Sequence[StrengthPoint]) -> list[StrengthPoint]:
    return [
        StrengthPoint(arm, ALL, strength, accuracy, ratio, math.nan)
        for (arm, strength), (accuracy, ratio) in pooled_by_strength(points).items()
    ]
