"""Sweeps over models, corpora and targets: scores by depth, transfer, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.core.errors import DataError
from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

Row = Mapping[str, Any]
_INTERVAL = "95 % %{customdata[0]:.3f} to %{customdata[1]:.3f}"


@dataclass(frozen=True)
class DepthCurve:
    """The first score of one sweep, site by site.

    Attributes:
        model, corpus, target, probe, kind: Names.
        measure: ``"accuracy"`` or ``"pearson"``.
        layers: Block indices.
        depth: From 0 (the embeddings) to 1 (behind the last block).
        value, low, high: Of each site.
        best: Index of the site that cross-validation chose.
        chance: Of always saying the same.
        beside: Controls that have a figure at each site, by name.
    """

    model: str
    corpus: str
    target: str
    probe: str
    kind: str
    measure: str
    layers: Sequence[int]
    depth: Sequence[float]
    value: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    best: int
    chance: float
    beside: Mapping[str, Sequence[float]]

    @property
    def title(self) -> str:
        """What tells it from the other curves."""
        return f"{self.model} · {self.corpus} · {self.target} · {self.probe}"


@dataclass(frozen=True)
class SweepsSummary:
    """What figures and tables show of sweeps over models, corpora and targets.

    Attributes:
        curves: One per sweep.
        controls, comparisons, transfer, learning, scale: Lines of the tables of these names.
    """

    curves: Sequence[DepthCurve]
    controls: Sequence[Row] = ()
    comparisons: Sequence[Row] = ()
    transfer: Sequence[Row] = ()
    learning: Sequence[Row] = ()
    scale: Sequence[Row] = ()


def depth_curves(summary: SweepsSummary, measure: str | None = None) -> go.Figure:
    """Scores of held-out rows by depth, models and corpora in one figure; chosen sites ringed.

    Args:
        summary: Of sweeps.
        measure: ``"accuracy"`` or ``"pearson"``; default: that of the first curve.

    Raises:
        DataError: If no curve has it.
    """
    import plotly.graph_objects as go

    measure = measure or summary.curves[0].measure
    curves = [curve for curve in summary.curves if curve.measure == measure]
    if not curves:
        raise DataError(f"No sweep is scored by {measure}.")
    figure = go.Figure()
    for i, curve in enumerate(curves):
        colour = style.emotion_colour("", i)
        dash = style.DASHES[(i // 4) % len(style.DASHES)]
        ends = list(zip(curve.low, curve.high, curve.layers, strict=True))
        figure.add_scatter(
            x=[*curve.depth, *reversed(curve.depth)],
            y=[*curve.high, *reversed(curve.low)],
            fill="toself",
            fillcolor=style.fade(colour),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=list(curve.depth),
            y=list(curve.value),
            customdata=ends,
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": dash},
            marker={"color": colour, "size": 5},
            name=curve.title,
            hovertemplate="block %{customdata[2]}: %{y:.3f}<br>95 % "
            + _INTERVAL
            + "<extra></extra>",
        )
        best = curve.best
        figure.add_scatter(
            x=[curve.depth[best]],
            y=[curve.value[best]],
            mode="markers",
            marker={"symbol": "circle-open", "size": 14, "color": colour, "line": {"width": 2.5}},
            hoverinfo="skip",
            showlegend=False,
        )
        for j, (name, values) in enumerate(curve.beside.items()):
            figure.add_scatter(
                x=list(curve.depth),
                y=list(values),
                mode="lines",
                line={"color": colour, "width": 1.5, "dash": style.DASHES[2 + j % 3]},
                name=f"{name}, {curve.corpus}",
                legendgroup=curve.title,
                visible=True if len(curves) == 1 else "legendonly",
            )
    for chance in sorted({round(curve.chance, 3) for curve in curves}):
        figure.add_scatter(
            x=[0, 1],
            y=[chance, chance],
            mode="lines",
            line={"color": style.MUTED, "width": 1.5, "dash": "dash"},
            name=f"always the same, {chance:.2f}",
            hoverinfo="skip",
        )
    figure.update_xaxes(**style.axis("depth (0: embeddings, 1: last block)", showgrid=False))
    figure.update_yaxes(**style.axis(measure))
    return style.finish(figure, 420, legend=True)


def transfer_heatmap(summary: SweepsSummary, model: str | None = None) -> go.Figure:
    """Probes of each corpus (rows) on the held-out rows of each (columns), at the chosen site.

    Args:
        summary: Of sweeps with a transfer matrix.
        model: Which; default: the first.

    Raises:
        DataError: If there is no transfer matrix (of that model).
    """
    import plotly.graph_objects as go

    rows = [row for row in summary.transfer if row["chosen"]]
    model = model or next((str(row["model"]) for row in rows), "")
    rows = [row for row in rows if row["model"] == model]
    if not rows:
        raise DataError(f"There is no transfer matrix{f' of {model}' if model else ''}.")
    rows = [row for row in rows if all(row[k] == rows[0][k] for k in ("target", "probe", "kind"))]
    trained = list(dict.fromkeys(str(row["trained_on"]) for row in rows))
    tested = list(dict.fromkeys(str(row["tested_on"]) for row in rows))
    cells = {(row["trained_on"], row["tested_on"]): float(row["value"]) for row in rows}
    values = [[cells.get((a, b), float("nan")) for b in tested] for a in trained]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=tested,
            y=trained,
            colorscale=style.SEQUENTIAL,
            zmin=0,
            zmax=1,
            texttemplate="%{z:.2f}",
            hovertemplate="fitted on %{y}, tested on %{x}: %{z:.3f}<extra></extra>",
            showscale=False,
        )
    )
    figure.update_xaxes(**style.axis("tested on", showgrid=False, showline=False))
    figure.update_yaxes(
        **style.axis("fitted on", showgrid=False, showline=False, autorange="reversed")
    )
    return style.finish(figure, 160 + 60 * len(trained))


def learning_curves(summary: SweepsSummary) -> go.Figure:
    """The first score by number of groups that the probe was fitted on.

    Raises:
        DataError: If there are no learning curves.
    """
    import plotly.graph_objects as go

    if not summary.learning:
        raise DataError("There are no learning curves.")
    names = ("model", "corpus", "target", "probe")
    by_title: dict[str, list[Row]] = {}
    for row in summary.learning:
        by_title.setdefault(" · ".join(str(row[name]) for name in names), []).append(row)
    figure = go.Figure()
    for i, (title, rows) in enumerate(by_title.items()):
        colour = style.emotion_colour("", i)
        figure.add_scatter(
            x=[row["groups"] for row in rows],
            y=[row["value"] for row in rows],
            customdata=[[row["low"], row["high"]] for row in rows],
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            name=title,
            hovertemplate=f"%{{x}} groups: %{{y:.3f}}<br>{_INTERVAL}<extra></extra>",
        )
    figure.update_xaxes(**style.axis("groups fitted on", type="log"))
    figure.update_yaxes(**style.axis(str(summary.learning[0]["measure"])))
    return style.finish(figure, 360, legend=True)


def scale_points(summary: SweepsSummary) -> go.Figure:
    """The first score at each model's chosen site by the number of its parameters.

    Raises:
        DataError: If fewer than two models were asked the same.
    """
    import plotly.graph_objects as go

    if not summary.scale:
        raise DataError("No two models were asked the same.")
    names = ("corpus", "target", "probe")
    by_title: dict[str, list[Row]] = {}
    for row in summary.scale:
        by_title.setdefault(" · ".join(str(row[name]) for name in names), []).append(row)
    figure = go.Figure()
    for i, (title, rows) in enumerate(by_title.items()):
        colour = style.emotion_colour("", i)
        y = [row["value"] for row in rows]
        figure.add_scatter(
            x=[row["parameters"] for row in rows],
            y=y,
            error_y={
                "type": "data",
                "array": [row["high"] - v for row, v in zip(rows, y, strict=True)],
                "arrayminus": [v - row["low"] for row, v in zip(rows, y, strict=True)],
                "thickness": 1.5,
            },
            customdata=[[row["low"], row["high"], row["model"], row["depth"]] for row in rows],
            mode="lines+markers",
            line={"color": colour, "width": 1.5, "dash": style.DASHES[1]},
            marker={"color": colour, "size": 9, "symbol": style.emotion_symbol("", i)},
            name=title,
            hovertemplate="%{customdata[2]}, depth %{customdata[3]:.2f}: %{y:.3f}<br>"
            + f"{_INTERVAL}<extra></extra>",
        )
    figure.update_xaxes(**style.axis("parameters", type="log"))
    figure.update_yaxes(**style.axis(str(summary.scale[0]["measure"])))
    return style.finish(figure, 360, legend=True)
