"""Which units write an emotion, where, and how much the sublayers matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.circuits.overlap import Overlap
from affectlens.core.errors import DataError, unknown
from affectlens.plotting import style
from affectlens.plotting.summaries import CircuitSummary

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from affectlens.circuits import Circuit

SUBLAYERS = ("Attention", "MLP")
UNITS = ("Attention heads", "Neurons")


COLUMNS = {"heads": "head", "neurons": "neuron rank"}
"""What a column of a contribution map is, by kind of unit."""


def _summary(circuit: Circuit | CircuitSummary) -> CircuitSummary:
    return circuit if isinstance(circuit, CircuitSummary) else CircuitSummary.of(circuit)


def _values(circuit: Circuit | CircuitSummary, name: str) -> tuple[CircuitSummary, NDArray[Any]]:
    """The summary of a circuit, and one of its arrays.

    Raises:
        DataError: If it lacks that.
    """
    found = _summary(circuit)
    if getattr(found, name) is None:
        raise DataError(f"This circuit has no {name} to draw.")
    return found, np.asarray(getattr(found, name))


def contribution_map(
    circuit: Circuit | CircuitSummary,
    emotion: str | None = None,
    kind: str = "heads",
    *,
    limit: float | None = None,
    scale: bool = True,
) -> go.Figure:
    """Direct contribution of units to one emotion's direction, layer by layer.

    Args:
        circuit: Or the numbers of a report.
        emotion: Whose; default: the first.
        kind: ``"heads"`` by index, or the strongest ``"neurons"`` of each layer by rank.
        limit: The colour scale runs from minus to plus this (default: the largest magnitude).
        scale: Whether to draw a colour bar.

    Raises:
        UnknownNameError: If there is no such emotion or kind of unit.
        DataError: If the circuit has no contributions of that kind.
    """
    import plotly.graph_objects as go

    if kind not in COLUMNS:
        raise unknown("kind of unit", kind, COLUMNS)
    found, contributions = _values(circuit, kind)
    emotion = found.emotions[0] if emotion is None else emotion
    if emotion not in found.emotions:
        raise unknown("emotion", emotion, found.emotions)
    unit = COLUMNS[kind]
    z = contributions[list(found.emotions).index(emotion)].astype(float)
    end = limit or (float(np.nanmax(np.abs(z))) if np.isfinite(z).any() else 1.0) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=z.tolist(),
            x=list(range(z.shape[1])),
            y=[int(layer) for layer in found.layers],
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


def influence_profile(circuit: Circuit | CircuitSummary) -> go.Figure:
    """Effect on the late emotion direction of a nudge at each sublayer's output.

    Raises:
        DataError: If no influence was measured for the circuit.
    """
    from plotly.subplots import make_subplots

    found, values = _values(circuit, "influence")
    layers, labels, values = found.layers, found.emotions, values.astype(float)
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


def allocation_bars(circuit: Circuit | CircuitSummary) -> go.Figure:
    """Number of units each emotion's circuit has in each layer.

    Raises:
        DataError: If the report that the numbers are of does not hold them.
    """
    from plotly.subplots import make_subplots

    found, values = _values(circuit, "counts")
    layers, labels = found.layers, found.emotions
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


def overlap_heatmap(overlap: Overlap | Circuit | CircuitSummary) -> go.Figure:
    """Units two circuits share, as a multiple of what equal allocations share by chance.

    Args:
        overlap: Of any kind of unit; of a circuit, that of its neurons.

    Raises:
        DataError: If the report that the numbers are of does not hold them.
    """
    import plotly.graph_objects as go

    found = overlap if isinstance(overlap, Overlap) else _summary(overlap).overlap
    if found is None:
        raise DataError("This circuit has no overlap to draw.")
    labels = found.emotions
    seen, chance = np.asarray(found.jaccard, float), np.asarray(found.expected, float)
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
