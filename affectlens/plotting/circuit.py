"""Which units write an emotion, where, and how much the sublayers matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import ArrayLike

SUBLAYERS = ("Attention", "MLP")
UNITS = ("Attention heads", "Neurons")


def contribution_map(
    matrix: ArrayLike,
    *,
    unit: str = "head",
    limit: float | None = None,
    layers: Sequence[int] | None = None,
    scale: bool = True,
) -> go.Figure:
    """Direct contribution of units to one emotion's direction, layer by layer.

    Args:
        matrix: Contributions, ``[layer, unit]``: heads by index, or neurons by rank or bin.
        unit: What a column is, for the axis ("head", "neuron rank").
        limit: The colour scale runs from minus to plus this (default: the largest magnitude).
        layers: Block indices (default: 0, 1, ...).
        scale: Whether to draw a colour bar.
    """
    import plotly.graph_objects as go

    z = np.asarray(matrix, dtype=float)
    end = limit or (float(np.nanmax(np.abs(z))) if np.isfinite(z).any() else 1.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z.tolist(),
            x=list(range(z.shape[1])),
            y=list(range(z.shape[0])) if layers is None else [int(layer) for layer in layers],
            zmin=-end,
            zmax=end,
            colorscale=style.DIVERGING,
            showscale=scale,
            colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"color": style.MUTED}},
            hovertemplate=f"layer %{{y}}, {unit} %{{x}}: %{{z:.4f}}<extra></extra>",
        )
    )
    ticks = {"showgrid": False, "showline": False}
    figure.update_xaxes(**style.axis(unit, **ticks, nticks=10))
    figure.update_yaxes(**style.axis("layer", **ticks, nticks=8))
    return style.finish(figure, 300)


def influence_profile(
    layers: Sequence[int], labels: Sequence[str], influence: ArrayLike
) -> go.Figure:
    """Effect on the late emotion direction of a nudge at each sublayer's output.

    Args:
        layers: Block indices.
        labels: Emotions.
        influence: ``[emotion, layer, 2]``, attention then MLP.
    """
    from plotly.subplots import make_subplots

    values = np.asarray(influence, dtype=float)
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=SUBLAYERS
    )
    style.panel_titles(figure)
    for row in (0, 1):
        for index, label in enumerate(labels):
            colour = style.emotion_colour(label, index)
            figure.add_scatter(
                x=[int(layer) for layer in layers],
                y=values[index, :, row].tolist(),
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"color": colour, "size": 5, "symbol": style.emotion_symbol(label, index)},
                name=label,
                legendgroup=label,
                showlegend=row == 0,
                hovertemplate=f"{label}, {SUBLAYERS[row]} of layer %{{x}}: %{{y:.3f}}"
                "<extra></extra>",
                row=row + 1,
                col=1,
            )
    figure.update_xaxes(**style.axis(showgrid=False))
    figure.update_xaxes(**style.axis("layer", showgrid=False), row=2, col=1)
    figure.update_yaxes(
        **style.axis(
            "influence", zeroline=True, zerolinecolor=style.MUTED, zerolinewidth=1, nticks=5
        )
    )
    style.finish(figure, 480, legend=True)
    figure.update_layout(margin_t=66, legend_y=1.075)
    return figure


def allocation_bars(layers: Sequence[int], labels: Sequence[str], counts: ArrayLike) -> go.Figure:
    """Number of units each emotion's circuit has in each layer.

    Args:
        layers: Block indices.
        labels: Emotions.
        counts: ``[emotion, layer, 2]``, attention heads then neurons.
    """
    from plotly.subplots import make_subplots

    values = np.asarray(counts)
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=UNITS
    )
    style.panel_titles(figure)
    for row in (0, 1):
        for index, label in enumerate(labels):
            figure.add_bar(
                x=[int(layer) for layer in layers],
                y=values[index, :, row].tolist(),
                marker={"color": style.emotion_colour(label, index), "line": {"width": 0}},
                name=label,
                legendgroup=label,
                showlegend=row == 0,
                hovertemplate=f"{label}, layer %{{x}}: %{{y}} {UNITS[row].lower()}<extra></extra>",
                row=row + 1,
                col=1,
            )
    figure.update_xaxes(**style.axis(showgrid=False))
    figure.update_xaxes(**style.axis("layer", showgrid=False), row=2, col=1)
    figure.update_yaxes(**style.axis("units"), nticks=5)
    style.finish(figure, 440, legend=True)
    figure.update_layout(barmode="stack", bargap=0.15, margin_t=66, legend_y=1.085)
    return figure


def overlap_heatmap(labels: Sequence[str], observed: ArrayLike, expected: ArrayLike) -> go.Figure:
    """Units two circuits share, as a multiple of what equal allocations share by chance.

    Args:
        labels: Emotions.
        observed: Shared units (count or share), ``[emotion, emotion]``.
        expected: The same for random units in the same layers.
    """
    import plotly.graph_objects as go

    seen, chance = np.asarray(observed, dtype=float), np.asarray(expected, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(chance > 0, seen / chance, np.nan)
    np.fill_diagonal(ratio, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log2(ratio)
    finite = np.abs(logs[np.isfinite(logs)])
    end = max(1.0, float(finite.max()) if finite.size else 1.0)
    text = [["" if np.isnan(v) else f"{v:.1f}×" for v in row] for row in ratio]
    figure = go.Figure(
        go.Heatmap(
            x=list(labels),
            y=list(labels),
            z=np.where(np.isneginf(logs), -end, logs).tolist(),
            customdata=np.stack([seen, chance, ratio], axis=-1).tolist(),
            zmin=-end,
            zmax=end,
            colorscale=style.DIVERGING,
            text=text,
            texttemplate="%{text}",
            textfont={"size": 12},
            hovertemplate="%{y} and %{x}: %{customdata[0]:.3g} shared, %{customdata[1]:.3g} "
            "by chance<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    figure.update_xaxes(**style.categories(autotickangles=style.UPRIGHT))
    figure.update_yaxes(**style.categories(autorange="reversed"))
    return style.finish(figure, 400)
