"""What steering does: strength against accuracy and fluency, arms, emotions, judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import ArrayLike

    from affectlens.reports.data import Arm, StrengthPoint


def strength_curves(
    points: Sequence[StrengthPoint], chosen: Mapping[str, float] | None = None
) -> go.Figure:
    """Accuracy and perplexity ratio over steering strength, one line per emotion.

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
    for index, label in enumerate(labels):
        own = sorted((p for p in points if p.emotion == label), key=lambda p: p.strength)
        colour = style.emotion_colour(label, index) if label else style.INK
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
                name=label or "all",
                legendgroup=label,
                showlegend=row == 1,
                hovertemplate=f"{label or 'all'}, strength %{{x}}: "
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


def arms_bars(arms: Sequence[Arm], false_hits: float | None = None) -> go.Figure:
    """Accuracy with its interval, plain and with feeling words masked, and perplexity ratio.

    Args:
        arms: In the order to show, first on top.
        false_hits: Accuracy of text that nobody steered; drawn as a dashed line.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06, column_widths=[0.62, 0.38]
    )
    names = [arm.label for arm in arms]
    colours = [style.arm_colour(arm.name) for arm in arms]
    accuracy = [arm.accuracy for arm in arms]
    figure.add_bar(
        y=names,
        x=accuracy,
        orientation="h",
        marker={"color": [style.fade(colour, style.BAR) for colour in colours]},
        hoverinfo="skip",
        row=1,
        col=1,
    )
    figure.add_scatter(
        y=names,
        x=accuracy,
        mode="markers",
        marker={"color": colours, "size": 9},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_reach(arm.high - arm.accuracy) for arm in arms],
            "arrayminus": [_reach(arm.accuracy - arm.low) for arm in arms],
            "color": style.MUTED,
            "thickness": 2,
            "width": 5,
        },
        customdata=[[arm.low, arm.high] for arm in arms],
        hovertemplate="%{y}: %{x:.1%}<br>95 % %{customdata[0]:.1%} to %{customdata[1]:.1%}"
        "<extra></extra>",
        row=1,
        col=1,
    )
    for arm in arms:
        if np.isfinite(arm.accuracy):
            figure.add_annotation(
                x=arm.high if np.isfinite(arm.high) else arm.accuracy,
                y=arm.label,
                text=f"{arm.accuracy:.0%}",
                showarrow=False,
                xanchor="left",
                xshift=8,
                font={"size": 12, "color": style.INK},
                row=1,
                col=1,
            )
    ratios = [arm.perplexity_ratio for arm in arms]
    figure.add_scatter(
        y=names,
        x=ratios,
        mode="markers+text",
        marker={"color": colours, "size": 9},
        text=[f"{ratio:.1f}×" if np.isfinite(ratio) else "" for ratio in ratios],
        textposition="middle right",
        textfont={"size": 12, "color": style.MUTED},
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.2f}×<extra></extra>",
        row=1,
        col=2,
    )
    masked = [(arm.label, arm.masked.value) for arm in arms if arm.masked is not None]
    if masked:
        figure.add_scatter(
            y=[label for label, _ in masked],
            x=[value for _, value in masked],
            mode="markers",
            marker={"color": style.MUTED, "size": 9, "symbol": "diamond-open"},
            hovertemplate="%{y}, feeling words masked: %{x:.1%}<extra></extra>",
            row=1,
            col=1,
        )
    if false_hits is not None:
        figure.add_shape(
            type="line",
            x0=false_hits,
            x1=false_hits,
            y0=0,
            y1=1,
            yref="y domain",
            line={"color": style.MUTED, "width": 1.5, "dash": "dash"},
            row=1,
            col=1,
        )
        figure.add_annotation(
            x=false_hits,
            y=1.0,
            yref="y domain",
            yanchor="bottom",
            text="nothing steered",
            showarrow=False,
            xanchor="left",
            font={"size": 11, "color": style.MUTED},
            row=1,
            col=1,
        )
    figure.update_yaxes(**style.axis(autorange="reversed", showgrid=False))
    figure.update_yaxes(tickfont={"size": 13, "color": style.INK}, row=1, col=1)
    figure.update_xaxes(
        **style.axis(
            "judged as the target",
            tickformat=".0%",
            range=[0, 1.08],
            tickvals=[0, 0.2, 0.4, 0.6, 0.8, 1],
        ),
        row=1,
        col=1,
    )
    finite = [ratio for ratio in ratios if np.isfinite(ratio)]
    right = max([2.0, *finite]) * 1.3
    figure.update_xaxes(**style.axis("perplexity ratio", range=[0, right], nticks=5), row=1, col=2)
    style.finish(figure, 100 + 42 * len(names))
    figure.update_layout(margin_t=24, bargap=0.5)
    return figure


def _reach(length: float) -> float:
    """Length of an error bar; none where there is no interval."""
    return max(0.0, length) if np.isfinite(length) else 0.0


def _shares(
    rows: Sequence[str], columns: Sequence[str], z: Any, hover: str, height: int, **more: Any
) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Heatmap(
            x=list(columns),
            y=list(rows),
            z=z,
            zmin=0,
            zmax=1,
            colorscale=style.SEQUENTIAL,
            texttemplate="%{z:.0%}",
            textfont={"size": 12},
            hovertemplate=hover,
            hoverongaps=False,
            xgap=2,
            ygap=2,
            showscale=False,
            **more,
        )
    )
    figure.update_xaxes(**style.categories(autotickangles=style.UPRIGHT))
    figure.update_yaxes(**style.categories(autorange="reversed"))
    return style.finish(figure, height)


def per_emotion_heatmap(
    arms: Sequence[str], labels: Sequence[str], accuracy: ArrayLike
) -> go.Figure:
    """Accuracy of every arm for every target emotion.

    Args:
        arms: Names of the arms.
        labels: Emotions.
        accuracy: ``[arm, emotion]``, in [0, 1]; NaN leaves a gap.
    """
    return _shares(
        arms,
        labels,
        np.asarray(accuracy, dtype=float).tolist(),
        "%{y}, target %{x}: %{z:.1%}<extra></extra>",
        120 + 40 * len(arms),
    )


def confusion(labels: Sequence[str], matrix: ArrayLike) -> go.Figure:
    """How a judge reads texts whose tone is known, each row summing to 1.

    Args:
        labels: Classes.
        matrix: Counts or shares, ``[true, judged]``.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(totals > 0, counts / totals, np.nan)
    figure = _shares(
        labels,
        labels,
        shares.tolist(),
        "written as %{y}, judged %{x}: %{z:.1%} (%{customdata:.4g})<extra></extra>",
        430,
        customdata=counts.tolist(),
    )
    figure.update_xaxes(title=style.axis("judged as")["title"])
    figure.update_yaxes(title=style.axis("written as")["title"])
    return figure
