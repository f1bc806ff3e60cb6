"""Colours, fonts and the layout every figure shares.

Figures are drawn in the light palette. The page swaps colour strings by :data:`DARK` when the
reader prefers dark, so a colour used in a figure must be one of the constants below. The six
emotion colours were searched for the largest smallest distance in OKLab under normal vision and
simulated protanopia, deuteranopia and tritanopia, at a contrast of at least 3:1 on the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAGE, PAGE_DARK = "#FFFFFF", "#14171D"
INK, INK_DARK = "#1B2230", "#E7EAF0"
MUTED, MUTED_DARK = "#5C6677", "#A2ACBC"
GRID, GRID_DARK = "#E4E8EE", "#2B323E"

_EMOTIONS: Mapping[str, tuple[str, str]] = {
    "anger": ("#9E2A12", "#EE5B46"),
    "disgust": ("#2E8B62", "#45C796"),
    "fear": ("#A24AC8", "#B57AC0"),
    "happiness": ("#B58D16", "#FFD03A"),
    "sadness": ("#2F4A88", "#5B7FFF"),
    "surprise": ("#1B9FB6", "#4CE4F4"),
    "neutral": ("#737C8A", "#98A1B0"),
}
_ARMS: Mapping[str, tuple[str, str]] = {
    "circuit": ("#1C2430", "#EEF1F6"),
    "residual": ("#4E5B70", "#B9C2D0"),
    "prompted": ("#7F8B9D", "#8692A6"),
    "unsteered": ("#A9B2C0", "#667286"),
    "analytic_circuit": ("#3A4556", "#CBD2DD"),
    "analytic_residual": ("#66738A", "#A3AEBF"),
    "random_units_refined_1": ("#8994A4", "#7A879B"),
    "random_units_refined_2": ("#949EAD", "#707D91"),
    "random_units_refined_3": ("#9FA8B6", "#667386"),
    "random_units_refined_4": ("#AAB2BF", "#5F6C7F"),
    "random_units_analytic": ("#B4BCC8", "#5A667A"),
    "random": ("#C6CDD7", "#4C5667"),
}
_OTHER: Sequence[tuple[str, str]] = (
    ("#8A5A44", "#C99378"),
    ("#5F7A1F", "#A5C25A"),
    ("#B3477D", "#E683B4"),
    ("#4F6D7A", "#8FB3C2"),
)
SYMBOLS: Sequence[str] = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon")
DASHES: Sequence[str] = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

_SEQUENTIAL = (
    ("#F5F7FA", "#1A1F28"),
    ("#C3D0E2", "#2C4464"),
    ("#7894BE", "#4F7DB8"),
    ("#233F73", "#B8D6FF"),
)
_DIVERGING = (
    ("#1F5C99", "#6FB5F2"),
    ("#94BBDD", "#2F5F8C"),
    ("#F6F6F6", "#1C212A"),
    ("#E3AE84", "#8A5528"),
    ("#A3510F", "#F5A25C"),
)
SEQUENTIAL = [[i / 3, pair[0]] for i, pair in enumerate(_SEQUENTIAL)]
DIVERGING = [[i / 4, pair[0]] for i, pair in enumerate(_DIVERGING)]

FONT = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Helvetica Neue', "
    "'DejaVu Sans', sans-serif"
)


BAND, BAR = 0.18, 0.4
"""Opacities of fills: intervals and guide lines, and bars behind a point."""


def fade(colour: str, alpha: float = BAND) -> str:
    """Write ``#RRGGBB`` as a translucent fill."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _dark_map() -> dict[str, str]:
    pairs = [
        (PAGE, PAGE_DARK),
        (INK, INK_DARK),
        (MUTED, MUTED_DARK),
        (GRID, GRID_DARK),
        *_EMOTIONS.values(),
        *_ARMS.values(),
        *_OTHER,
        *_SEQUENTIAL,
        *_DIVERGING,
    ]
    return dict(pairs) | {
        fade(light, alpha): fade(dark, alpha) for light, dark in pairs for alpha in (BAND, BAR)
    }


DARK: Mapping[str, str] = _dark_map()
"""Light colour to dark colour, for every colour a figure may hold."""


def emotion_colour(name: str, index: int = 0) -> str:
    """Colour of a label: fixed for the six emotions and neutral, by position for any other."""
    pair = _EMOTIONS.get(name) or _OTHER[index % len(_OTHER)]
    return pair[0]


def emotion_symbol(name: str, index: int = 0) -> str:
    """Marker of a label, so that colour is never the only difference."""
    known = list(_EMOTIONS)
    return SYMBOLS[known.index(name) if name in known else index % len(SYMBOLS)]


def arm_colour(name: str) -> str:
    """Colour of an arm: shades of ink, so that no arm looks like an emotion."""
    return (_ARMS.get(name) or _ARMS["unsteered"])[0]


def css_variables(dark: bool) -> str:
    """CSS custom properties for the colours the page shares with the figures."""
    side = int(dark)
    values = {
        "page": (PAGE, PAGE_DARK)[side],
        "ink": (INK, INK_DARK)[side],
        "muted": (MUTED, MUTED_DARK)[side],
        "line": (GRID, GRID_DARK)[side],
        **{f"e-{name}": pair[side] for name, pair in _EMOTIONS.items()},
        **{f"x-{index}": pair[side] for index, pair in enumerate(_OTHER)},
        "diverging": ", ".join(pair[side] for pair in _DIVERGING),
    }
    return "".join(f"--{name}:{value};" for name, value in values.items())


def css_colour(name: str, index: int = 0) -> str:
    """CSS expression of a label's colour in either theme."""
    return f"var(--e-{name})" if name in _EMOTIONS else f"var(--x-{index % len(_OTHER)})"


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Common properties of an axis."""
    base: dict[str, Any] = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "ticks": "",
        "ticklabelstandoff": 4,
        "tickfont": {"size": 12, "color": MUTED},
    }
    if title:
        base["title"] = {"text": title, "font": {"size": 13, "color": MUTED}, "standoff": 8}
    return base | more


def categories(**more: Any) -> dict[str, Any]:
    """An axis of labels beside the cells of a heat map."""
    return axis(showgrid=False, showline=False, **more)


UPRIGHT: Sequence[int] = (0, -40, -90)
"""Tick angles in the order they are tried when labels would touch."""


def finish(figure: go.Figure, height: int, *, legend: bool = False) -> go.Figure:
    """Give a figure the shared fonts, margins and transparent background."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 12, "r": 16, "t": 40 if legend else 14, "b": 12, "pad": 2},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        hoverlabel={
            "bgcolor": PAGE,
            "bordercolor": GRID,
            "font": {"family": FONT, "size": 13, "color": INK},
        },
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12, "color": INK},
            "bgcolor": "rgba(0,0,0,0)",
        },
        dragmode=False,
    )
    return figure


def panel_titles(figure: go.Figure) -> None:
    """Style the titles `plotly.subplots.make_subplots` writes: left, small, ink."""
    figure.update_annotations(font={"size": 13, "color": INK, "family": FONT}, xanchor="left", x=0)
