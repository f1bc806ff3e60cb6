"""Studies of probes: readings by offset of a reply, by system prompt, by turn of a dialogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from affectlens.core.errors import DataError
from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

Row = Mapping[str, Any]
_PANEL, _TOP = 300, 60


@dataclass(frozen=True)
class StudySummary:
    """What figure and page show of a study.

    Attributes:
        study: ``persistence``, ``malleability`` or ``dialogue``.
        rows: Its lines.
        facts: What they depend on.
    """

    study: str
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def some(self, **wanted: object) -> list[Row]:
        """Lines with these values."""
        return [r for r in self.rows if all(r.get(name) == v for name, v in wanted.items())]

    def names(self, column: str, rows: Sequence[Row] | None = None) -> list[str]:
        """Values of a column, in order of appearance."""
        return list(dict.fromkeys(str(row[column]) for row in (rows or self.rows)))


def worth_a_line(row: Row) -> bool:
    """Lines beside a control, at the chosen site; single dialogues stand in the figure."""
    return bool(row["control"]) and row.get("chosen", True) and row["groups"] != 1


def study_figure(summary: StudySummary) -> go.Figure:
    """The figure of a study.

    Raises:
        DataError: If there is no such study.
    """
    drawn: dict[str, Callable[[StudySummary], go.Figure]] = {
        "persistence": _persistence,
        "malleability": _malleability,
        "dialogue": _dialogue,
    }
    if summary.study not in drawn:
        raise DataError(f"There is no figure of the study {summary.study}.")
    return drawn[summary.study](summary)


def _persistence(summary: StudySummary) -> go.Figure:
    """Held-out score by offset, a panel a target."""
    panels = summary.names("panel")
    figure = _panels(panels)
    for i, panel in enumerate(panels):
        mine = [row for row in summary.some(panel=panel) if row.get("chosen")]
        for j, series in enumerate(summary.names("series", mine)):
            rows = [row for row in mine if row["series"] == series]
            _curve(figure, rows, series, j, panel=i)
        figure.update_yaxes(**style.axis(str(mine[0]["measure"])), row=i + 1, col=1)
    title = "token of the reply, the first is 0"
    figure.update_xaxes(**style.axis(title, showgrid=False))
    return style.finish(figure, _TOP + _PANEL * len(panels), legend=True)


def _malleability(summary: StudySummary) -> go.Figure:
    """Change of each label's probability under each system prompt, of replies and their words."""
    rows = summary.some(measure="change of probability")
    panels = summary.names("series", rows)
    figure = _panels(panels)
    for i, series in enumerate(panels):
        for j, system in enumerate(summary.names("panel", rows)):
            own = [row for row in rows if row["series"] == series and row["panel"] == system]
            ends = [[row["value"] - row["low"] for row in own]]
            ends.append([row["high"] - row["value"] for row in own])
            figure.add_bar(
                x=[row["x"] for row in own],
                y=[row["value"] for row in own],
                error_y={"type": "data", "array": ends[1], "arrayminus": ends[0], "thickness": 1.2,
                         "color": style.MUTED},
                marker={"color": style.emotion_colour("", j)},
                name=f"{system}: {summary.facts.get('systems', {}).get(system, '')}",
                legendgroup=system,
                showlegend=i == 0,
                hovertemplate="%{x}: %{y:.3f}<extra>" + system + "</extra>",
                row=i + 1,
                col=1,
            )  # fmt: skip
        figure.update_yaxes(**style.axis("change of probability"), row=i + 1, col=1)
    figure.update_xaxes(**style.axis(showgrid=False))
    figure.update_layout(barmode="group")
    return style.finish(figure, _TOP + _PANEL * len(panels), legend=True)


def _dialogue(summary: StudySummary) -> go.Figure:
    """Probability of each label by turn: of all dialogues together, or of the first few."""
    rows = summary.some(measure="probability")
    panels = [p for p in summary.names("panel", rows) if p == "all dialogues"]
    panels += [p for p in summary.names("panel", rows) if p not in panels][: 3 - len(panels)]
    figure = _panels([f"dialogue {p}" if p != "all dialogues" else p for p in panels])
    for i, panel in enumerate(panels):
        for j, label in enumerate(summary.names("series", rows)):
            own = [row for row in rows if row["panel"] == panel and row["series"] == label]
            _curve(figure, own, label, j, panel=i, beside=True)
        figure.update_yaxes(**style.axis("probability", range=[0, 1]), row=i + 1, col=1)
    figure.update_xaxes(**style.axis("turn", showgrid=False, dtick=1))
    return style.finish(figure, _TOP + _PANEL * len(panels), legend=True)


def _panels(titles: Sequence[str]) -> go.Figure:
    from plotly.subplots import make_subplots

    gap = min(0.12, 0.3 / max(1, len(titles)))
    figure = make_subplots(
        rows=len(titles), cols=1, subplot_titles=list(titles), vertical_spacing=gap
    )
    style.panel_titles(figure)
    return figure


def _curve(
    figure: go.Figure,
    rows: Sequence[Row],
    name: str,
    index: int,
    *,
    panel: int,
    beside: bool = False,
) -> None:
    """A line with its band; ``beside`` dashed in its colour."""
    colour = style.emotion_colour(name, index)
    x, y = [row["x"] for row in rows], [row["value"] for row in rows]
    where: dict[str, Any] = {"row": panel + 1, "col": 1}
    if all(math.isfinite(row["low"]) and math.isfinite(row["high"]) for row in rows):
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*(row["high"] for row in rows), *(row["low"] for row in reversed(rows))],
            fill="toself",
            fillcolor=style.fade(colour),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            **where,
        )
    marker = {"color": colour, "size": 6, "symbol": style.emotion_symbol(name, index)}
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker=marker,
        name=name,
        legendgroup=name,
        showlegend=panel == 0,
        hovertemplate="%{x}: %{y:.3f}<extra>" + name + "</extra>",
        **where,
    )
    if beside:
        figure.add_scatter(
            x=x,
            y=[row["beside"] for row in rows],
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            **where,
        )
