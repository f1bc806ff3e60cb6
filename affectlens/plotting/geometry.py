"""How the emotion directions lie to each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens import geometry
from affectlens.core.errors import DataError
from affectlens.geometry import Directions
from affectlens.plotting import style
from affectlens.plotting.summaries import DirectionsSummary, most_reliable_site

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from numpy.typing import NDArray

    from affectlens.core.places import Site
    from affectlens.geometry.emotion_map import EmotionMap


def _summary(
    directions: Directions | DirectionsSummary, site: Site | str | None
) -> DirectionsSummary:
    if isinstance(directions, DirectionsSummary):
        return directions
    return DirectionsSummary.of(directions, site)


def cosine_heatmap(
    directions: Directions | DirectionsSummary, site: Site | str | None = None
) -> go.Figure:
    """Cosine between every two directions.

    Args:
        directions: Or the numbers of a report.
        site: Where; default: the most reliable one. A summary has one site only.

    Raises:
        UnknownNameError: If there are no directions for the site.
    """
    import plotly.graph_objects as go

    found = _summary(directions, site)
    labels = found.emotions
    z = np.asarray(found.cosines, dtype=float).tolist()
    figure = go.Figure(
        go.Heatmap(
            x=list(labels),
            y=list(labels),
            z=z,
            zmin=-1,
            zmax=1,
            colorscale=style.DIVERGING,
            texttemplate="%{z:.2f}",
            textfont={"size": 12},
            hovertemplate="%{y} and %{x}: %{z:.3f}<extra></extra>",
            xgap=2,
            ygap=2,
            showscale=False,
        )
    )
    figure.update_xaxes(**style.categories(autotickangles=style.UPRIGHT))
    figure.update_yaxes(**style.categories(autorange="reversed"))
    return style.finish(figure, 400)


_PLACES: tuple[tuple[str, float, float], ...] = tuple(
    (f"{vertical} {horizontal}", dx, dy)
    for (vertical, dy), (horizontal, dx) in itertools.product(
        (("top", 1.0), ("middle", 0.0), ("bottom", -1.0)),
        (("center", 0.0), ("right", 1.0), ("left", -1.0)),
    )
    if dx or dy
)


Box = tuple[float, float, float, float]  # left, right, bottom, top


def _shared(a: Box, b: Box) -> float:
    """Area two boxes share."""
    width = min(a[1], b[1]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[2], b[2])
    return max(0.0, width) * max(0.0, height)


def _place_labels(labels: Sequence[str], xy: NDArray[np.float64], frame: Box) -> list[str]:
    """Choose a text position per point so that labels do not cover points or each other.

    Greedy over the eight positions around a point, away from the origin if free; boxes are
    estimated for letters of 13 px on a frame 300 px wide.
    """
    pixel = (frame[1] - frame[0]) / 300
    letter, line, gap = 7.6 * pixel, 17 * pixel, 14 * pixel
    boxes: list[Box] = [(x - gap / 2, x + gap / 2, y - gap / 2, y + gap / 2) for x, y in xy]
    chosen: list[str] = []
    for label, (x, y) in zip(labels, xy, strict=True):
        width, best = letter * len(label), None
        for place, dx, dy in _PLACES:
            cx, cy = x + dx * (gap + width) / 2, y + dy * (gap + line) / 2
            box = (cx - width / 2, cx + width / 2, cy - line / 2, cy + line / 2)
            cost = sum(_shared(box, other) for other in boxes)
            cost += width * line - _shared(box, frame)
            outward = (dx * x + dy * y) / (np.hypot(dx, dy) * np.hypot(x, y) + 1e-12)
            cost -= 0.1 * letter * line * outward
            if best is None or cost < best[0]:
                best = (cost, place, box)
        assert best is not None
        chosen.append(best[1])
        boxes.append(best[2])
    return chosen


def _frame(points: NDArray[np.float64]) -> Box:
    """A square that holds the origin, the points and room for their labels."""
    low, high = points.min(axis=0, initial=0.0), points.max(axis=0, initial=0.0)
    half = 0.72 * float((high - low).max()) or 1.0
    x, y = (low + high) / 2
    return (float(x - half), float(x + half), float(y - half), float(y + half))


def emotion_map(found: EmotionMap | Directions, site: Site | str | None = None) -> go.Figure:
    """Directions on the plane of their first two principal components.

    Args:
        found: The map, or the directions to make it of.
        site: Where, for directions; default: the most reliable one.

    Raises:
        DataError: If there are fewer than three directions.
        UnknownNameError: If there are none for the site.
    """
    import plotly.graph_objects as go

    if isinstance(found, Directions):
        found = geometry.emotion_map(found, site or most_reliable_site(found))
    labels, explained = found.emotions, found.explained.tolist()
    points = np.asarray(found.points, dtype=float)
    frame = _frame(points)
    places = _place_labels(labels, points, frame)
    figure = go.Figure()
    for index, (label, (x, y), place) in enumerate(zip(labels, points, places, strict=True)):
        colour = style.emotion_colour(label, index)
        figure.add_scatter(
            x=[0, float(x)],
            y=[0, float(y)],
            mode="lines",
            line={"color": style.fade(colour), "width": 3},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=[float(x)],
            y=[float(y)],
            mode="markers+text",
            marker={"color": colour, "size": 13, "symbol": style.emotion_symbol(label, index)},
            text=[label],
            textposition=place,
            textfont={"size": 13, "color": colour},
            cliponaxis=False,
            name=label,
            hovertemplate=f"{label}: (%{{x:.2f}}, %{{y:.2f}})<extra></extra>",
        )
    names = ["first component", "second component"]
    if np.isfinite(explained).all():
        names = [f"{n} ({share:.0%})" for n, share in zip(names, explained, strict=True)]
    common: dict[str, Any] = {
        "showticklabels": False,
        "showgrid": False,
        "zeroline": True,
        "zerolinecolor": style.GRID,
        "constrain": "domain",
    }
    figure.update_xaxes(**style.axis(names[0], range=frame[:2], **common))
    figure.update_yaxes(**style.axis(names[1], range=frame[2:], scaleanchor="x", **common))
    return style.finish(figure, 400)


def split_half(
    directions: Directions | DirectionsSummary, site: Site | str | None = None
) -> go.Figure:
    """Cosine between directions fitted on two random halves of the groups, by layer.

    Args:
        directions: Or the numbers of a report.
        site: All sites of its kind are drawn; default: the most reliable one.

    Raises:
        DataError: If the halves were not compared, as for refined directions.
        UnknownNameError: If there are no directions for the site.
    """
    import plotly.graph_objects as go

    found = _summary(directions, site)
    if found.split_half is None:
        raise DataError("These directions have no split-half cosines; plot those before refining.")
    layers, labels = found.layers, found.emotions
    values = np.asarray(found.split_half, dtype=float)
    figure = go.Figure()
    for index, label in enumerate(labels):
        colour = style.emotion_colour(label, index)
        figure.add_scatter(
            x=[int(layer) for layer in layers],
            y=values[:, index].tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"color": colour, "size": 6, "symbol": style.emotion_symbol(label, index)},
            name=label,
            hovertemplate=f"{label}, layer %{{x}}: %{{y:.2f}}<extra></extra>",
        )
    figure.update_xaxes(**style.axis("layer", showgrid=False))
    bottom = min(0.0, float(np.nanmin(values)) - 0.05) if np.isfinite(values).any() else 0.0
    figure.update_yaxes(**style.axis("split-half cosine", range=[bottom, 1.02]))
    return style.finish(figure, 340, legend=True)
