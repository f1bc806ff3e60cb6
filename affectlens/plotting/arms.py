"""Arms of the steering comparison: what is heard, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from affectlens.evaluation.arms import ARMS, UNSTEERED
from affectlens.plotting import style
from affectlens.plotting.shares import shares_heatmap

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from affectlens.evaluation import ArmMetrics


def targets(arms: Mapping[str, ArmMetrics]) -> tuple[str, ...]:
    """Emotions that the arms aim at."""
    return tuple(dict.fromkeys(emotion for arm in arms.values() for emotion in arm.per_emotion))


def arm_title(name: str) -> str:
    """What people read of an arm: its title, or a name of the caller's as it is."""
    return ARMS[name].title if name in ARMS else name


def arms_bars(arms: Mapping[str, ArmMetrics]) -> go.Figure:
    """Accuracy with its interval, plain and with feeling words masked, and perplexity ratio.

    The accuracy of the arm ``unsteered``, if it is there, is drawn as a dashed line: false hits.

    Args:
        arms: By name, in the order to show, first on top.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06, column_widths=[0.62, 0.38]
    )
    names = [arm_title(name) for name in arms]
    colours = [style.arm_colour(name) for name in arms]
    metrics = list(arms.values())
    accuracy = [arm.accuracy for arm in metrics]
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
            "array": [_reach(arm.accuracy_ci[1] - arm.accuracy) for arm in metrics],
            "arrayminus": [_reach(arm.accuracy - arm.accuracy_ci[0]) for arm in metrics],
            "color": style.MUTED,
            "thickness": 2,
            "width": 5,
        },
        customdata=[list(arm.accuracy_ci) for arm in metrics],
        hovertemplate="%{y}: %{x:.1%}<br>95 % %{customdata[0]:.1%} to %{customdata[1]:.1%}"
        "<extra></extra>",
        row=1,
        col=1,
    )
    for name, arm in zip(names, metrics, strict=True):
        if np.isfinite(arm.accuracy):
            high = arm.accuracy_ci[1]
            figure.add_annotation(
                x=high if np.isfinite(high) else arm.accuracy,
                y=name,
                text=f"{arm.accuracy:.0%}",
                showarrow=False,
                xanchor="left",
                xshift=8,
                font={"size": 12, "color": style.INK},
                row=1,
                col=1,
            )
    ratios = [arm.perplexity_ratio for arm in metrics]
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
    masked = [
        (name, arm.masked_accuracy)
        for name, arm in zip(names, metrics, strict=True)
        if np.isfinite(arm.masked_accuracy)
    ]
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
    if UNSTEERED in arms:
        false_hits = arms[UNSTEERED].accuracy
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


def per_emotion_heatmap(arms: Mapping[str, ArmMetrics]) -> go.Figure:
    """Accuracy of every arm for every target emotion.

    Args:
        arms: By name, in the order to show; those without targets are left out.
    """
    shown = {name: arm.per_emotion for name, arm in arms.items() if arm.per_emotion}
    emotions = targets(arms)
    return shares_heatmap(
        [arm_title(name) for name in shown],
        emotions,
        [[accuracy.get(emotion, math.nan) for emotion in emotions] for accuracy in shown.values()],
        "%{y}, target %{x}: %{z:.1%}<extra></extra>",
        120 + 40 * len(shown),
    )
