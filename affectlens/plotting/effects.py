"""Maps of what heads are worth, and the edges between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from affectlens.core.emotions import emotion_name
from affectlens.core.errors import DataError
from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from affectlens.circuits.attribution.edge_scores import EdgeScores
    from affectlens.circuits.attribution.scores import UnitScores

TOP_EDGES = 40


def effect_map(
    scores: UnitScores, emotion: str | None = None, *, direct: UnitScores | None = None
) -> go.Figure:
    """Total effect of every head on one emotion's margin, layer by layer.

    Args:
        scores: Of `total_effects`, or of any method.
        emotion: Whose; default: the first.
        direct: Direct contributions, drawn beside it on a scale of their own.

    Raises:
        UnknownNameError: If there is no such emotion.
    """
    from plotly.subplots import make_subplots

    emotion = scores.emotions[0] if emotion is None else emotion_name(emotion, scores.emotions)
    panels = [("total effect on the margin", scores)]
    if direct is not None:
        panels.insert(0, ("direct contribution", direct))
    titles = [title for title, _ in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, shared_yaxes=True)
    style.panel_titles(figure)
    for column, (title, one) in enumerate(panels, start=1):
        values = one.heads[one.emotions.index(emotion)].nan_to_num().numpy().astype(float)
        end = float(abs(values).max()) or 1.0
        figure.add_heatmap(
            z=values.tolist(),
            zmin=-end,
            zmax=end,
            colorscale=style.DIVERGING,
            showscale=False,
            name=title,
            hovertemplate="head %{y}.%{x}: %{z:.4f}<extra>" + title + "</extra>",
            row=1,
            col=column,
        )
    ticks = {"showgrid": False, "showline": False}
    figure.update_xaxes(**style.axis("head", **ticks, nticks=10))
    figure.update_yaxes(**style.axis("", **ticks, nticks=8))
    figure.update_yaxes(title="layer", col=1)
    return style.finish(figure, 360)


def edge_sankey(
    scores: EdgeScores,
    emotion: str | None = None,
    *,
    count: int = TOP_EDGES,
    written: Mapping[str, str] | None = None,
) -> go.Figure:
    """The strongest edges of one emotion, from senders to receivers.

    Width is the size of the score; edges whose change would raise the margin are drawn grey.

    Args:
        scores: Of `edge_scores`.
        emotion: Whose; default: the first.
        count: How many edges.
        written: By sender's name what it promotes and suppresses, shown when pointed at.

    Raises:
        UnknownNameError: If there is no such emotion.
        DataError: If no edge has a score.
    """
    import plotly.graph_objects as go

    emotion = scores.emotions[0] if emotion is None else emotion_name(emotion, scores.emotions)
    edges = scores.strongest(emotion, count)
    if not edges:
        raise DataError(f"No edge of {emotion} has a score to draw.")
    # A sublayer reads before it writes: what it reads and its heads are nodes of their own.
    names = dict.fromkeys(edge.sender.name for edge in edges)
    names |= dict.fromkeys(f"into {edge.receiver.name}" for edge in edges)
    number = {name: i for i, name in enumerate(names)}
    colour = style.emotion_colour(emotion, scores.emotions.index(emotion))
    figure = go.Figure(
        go.Sankey(
            node={
                "label": list(names),
                "customdata": [(written or {}).get(name, "") for name in names],
                "hovertemplate": "%{label}<br>%{customdata}<extra></extra>",
                "color": style.MUTED,
                "pad": 8,
                "thickness": 10,
                "line": {"width": 0},
            },
            link={
                "source": [number[edge.sender.name] for edge in edges],
                "target": [number[f"into {edge.receiver.name}"] for edge in edges],
                "value": [abs(edge.score) for edge in edges],
                "customdata": [edge.score for edge in edges],
                "color": [
                    style.fade(colour if e.score > 0 else style.MUTED, style.BAR) for e in edges
                ],
                "hovertemplate": "%{source.label} %{target.label}: %{customdata:.4f}"
                "<extra></extra>",
            },
        )
    )
    return style.finish(figure, max(360, 16 * count))
