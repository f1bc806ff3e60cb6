"""What tests of a circuit found: curves beside random bands, faithfulness, choices of tone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.circuits.evidence import (
    AblationCurve,
    Confusion,
    EnhancementCurve,
    FaithfulnessCurve,
)
from affectlens.core.errors import DataError
from affectlens.plotting import style
from affectlens.plotting.evidence_summary import ChoiceSummary, CurveSummary, LeftSummary
from affectlens.plotting.shares import shares_heatmap

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLUMNS = 3


def k_curves(
    curve: AblationCurve | EnhancementCurve | CurveSummary, emotion: str | None = None
) -> go.Figure:
    """Change of each emotion's margin by number of units, beside the band of random units.

    Args:
        curve: An ablation or an enhancement, or its numbers.
        emotion: One alone; default: a panel for each.
    """
    found = curve if isinstance(curve, CurveSummary) else CurveSummary.of(curve)
    chosen = _chosen(found.emotions, emotion)
    figure, places = _panels([found.emotions[e] for e in chosen])
    x = [str(n) for n in found.counts]
    change, others = np.asarray(found.change, float), np.asarray(found.others, float)
    low, high = np.asarray(found.random_low, float), np.asarray(found.random_high, float)
    for e, (row, column) in zip(chosen, places, strict=True):
        label, where = found.emotions[e], {"row": row, "col": column}
        colour, first = style.emotion_colour(label, e), e == chosen[0]
        figure.add_scatter(
            x=[*x, *reversed(x)],
            y=[*high[e], *reversed(low[e].tolist())],
            fill="toself",
            mode="lines",
            fillcolor=style.fade(style.MUTED),
            line={"width": 0},
            hoverinfo="skip",
            name="random units",
            legendgroup="random",
            showlegend=first,
            **where,
        )
        figure.add_scatter(
            x=x,
            y=others[e].tolist(),
            mode="lines",
            line={"color": style.MUTED, "width": 1.5, "dash": "dot"},
            name="other emotions' margins",
            legendgroup="others",
            showlegend=first,
            hovertemplate="others, %{x} units: %{y:.3f}<extra></extra>",
            **where,
        )
        figure.add_scatter(
            x=x,
            y=change[e].tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"color": colour, "size": 6, "symbol": style.emotion_symbol(label, e)},
            name=label,
            showlegend=False,
            hovertemplate=f"{label}, %{{x}} units: %{{y:.3f}} nats per token<extra></extra>",
            **where,
        )
    figure.update_xaxes(**style.axis(showgrid=False), type="category")
    figure.update_yaxes(**style.axis(zeroline=True, zerolinecolor=style.MUTED, nticks=4))
    return _finished(figure, len(chosen))


def f_curves(curve: FaithfulnessCurve | LeftSummary, emotion: str | None = None) -> go.Figure:
    """Faithfulness by share of the units that is left, beside random units; 1 is the model.

    Args:
        curve: Or its numbers.
        emotion: One alone; default: a panel for each.
    """
    found = curve if isinstance(curve, LeftSummary) else LeftSummary.of(curve)
    chosen = _chosen(found.emotions, emotion)
    titles = [
        f"{found.emotions[e]}: CPR {found.cpr[e]:.2f}, CMD {found.cmd[e]:.2f}" for e in chosen
    ]
    figure, places = _panels(titles)
    x = [f"{share:g} %" for share in found.shares]
    f, random = np.asarray(found.f, float), np.asarray(found.random, float)
    for e, (row, column) in zip(chosen, places, strict=True):
        label, where = found.emotions[e], {"row": row, "col": column}
        colour, first = style.emotion_colour(label, e), e == chosen[0]
        for name, values, colour_of, dash in (
            ("random units", random[e], style.MUTED, "dot"),
            (label, f[e], colour, "solid"),
        ):
            figure.add_scatter(
                x=x,
                y=values.tolist(),
                mode="lines+markers",
                line={"color": colour_of, "width": 2, "dash": dash},
                marker={"color": colour_of, "size": 6},
                name=name,
                legendgroup=name,
                showlegend=first and name == "random units",
                hovertemplate=f"{name}, %{{x}} left: f = %{{y:.2f}}<extra></extra>",
                **where,
            )
    figure.update_xaxes(**style.axis(showgrid=False), type="category")
    figure.update_yaxes(**style.axis(zeroline=True, zerolinecolor=style.MUTED, nticks=4))
    return _finished(figure, len(chosen))


def choices(found: Confusion | ChoiceSummary, which: str = "after") -> go.Figure:
    """In which tone texts of other tones are gone on with, by whose units were set.

    Args:
        found: Or its numbers.
        which: ``"before"``, ``"after"`` or ``"random"``.
    """
    summary = found if isinstance(found, ChoiceSummary) else ChoiceSummary.of(found)
    shares: Any = {"before": summary.before, "after": summary.after, "random": summary.random}
    if which not in shares:
        raise DataError(f"Choices are those before, after or random, not {which!r}.")
    figure = shares_heatmap(
        tuple(summary.emotions),
        tuple(summary.told),
        np.asarray(shares[which], float).tolist(),
        "units of %{y}, gone on in %{x}: %{z:.0%}<extra></extra>",
        360,
    )
    figure.update_xaxes(title=style.axis("gone on in")["title"])
    figure.update_yaxes(title=style.axis("units of")["title"])
    return figure


def _chosen(emotions: Sequence[str], emotion: str | None) -> list[int]:
    from affectlens.core.errors import unknown

    if emotion is None:
        return list(range(len(emotions)))
    if emotion not in emotions:
        raise unknown("emotion", emotion, emotions)
    return [list(emotions).index(emotion)]


def _panels(titles: Sequence[str]) -> tuple[Any, list[tuple[int, int]]]:
    from plotly.subplots import make_subplots

    columns = min(_COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    figure: Any = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",  # pyright: ignore[reportArgumentType]  # plotly knows it
        subplot_titles=titles,
        vertical_spacing=0.18,
        horizontal_spacing=0.05,
    )
    figure.update_annotations(font={"size": 13, "color": style.INK, "family": style.FONT})
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def _finished(figure: Any, panels: int) -> go.Figure:
    rows = -(-panels // _COLUMNS)
    style.finish(figure, 120 + 190 * rows, legend=True)
    figure.update_layout(margin_t=76, legend_y=1.12 if rows > 1 else 1.2)
    return figure
