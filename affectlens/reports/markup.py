"""Pieces of HTML. Whatever comes from a user or a model passes through `text`."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.plotting import style

if TYPE_CHECKING:
    import plotly.graph_objects as go

MISSING = "–"


def text(value: object) -> str:
    """Escape for element content and quoted attributes; control characters are dropped."""
    kept = "".join(c for c in str(value) if c in "\n\t" or (ord(c) >= 32 and ord(c) != 127))
    # A lone surrogate cannot be written as UTF-8.
    kept = kept.encode("utf-8", "replace").decode("utf-8")
    return html.escape(kept, quote=True)


def json_block(value: str, name: str) -> str:
    """A data block the page's script reads; the JSON cannot close the element."""
    safe = value.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def finite(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def percent(value: float | None, digits: int = 0) -> str:
    """``0.923`` as ``92 %``."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:.{digits}f}\u202f%"


def number(value: float | None, digits: int = 2) -> str:
    """A rounded number, a real minus sign, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def memory(size: int) -> str:
    """Bytes as MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def plot(figure: go.Figure, name: str, label: str) -> str:
    """Place for a figure, and its data."""
    value = str(figure.to_json())
    height = int(json.loads(value)["layout"]["height"])
    return (
        f'<div class="plot" id="{name}" role="img" aria-label="{text(label)}" '
        f'style="height:{height}px"></div>' + json_block(value, f"{name}-data")
    )


def card(title: str, body: str, *, finding: str = "", explain: str = "", wide: bool = True) -> str:
    """A figure with its title, what it says in one sentence, and how to read it.

    Args:
        title: Escaped already, as are all arguments.
        body: The figure or table.
        finding: What it shows, above it.
        explain: How to read it, below it; what follows ``<b>Limits.</b>`` is a paragraph apart.
        wide: Give the figure the whole width; otherwise the text stands beside it.
    """
    notes = ""
    if explain:
        before, mark, after = explain.partition("<b>Limits.</b>")
        notes = f'<div class="explain"><p>{before}</p>'
        notes += f"<p>{mark}{after}</p></div>" if mark else "</div>"
    if not wide:
        body, notes = f'<div class="beside"><div>{body}</div>{notes}</div>', ""
    return (
        f'<div class="card"><h3>{title}</h3>'
        + (f'<p class="finding">{finding}</p>' if finding else "")
        + body
        + notes
        + "</div>"
    )


def dot(label: str, index: int = 0) -> str:
    """A bullet in an emotion's colour."""
    return f'<span class="dot" style="--c:{style.css_colour(label, index)}"></span>'


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what is shown, the value behind it, and whether it is the best."""

    shown: str
    value: float | None = None
    best: bool = False


def table(
    heads: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Cell]]],
    *,
    sortable: bool = False,
    words: int = 1,
) -> str:
    """A table of numbers; ``data-value`` keeps each at full precision.

    Args:
        heads: Titles of the columns, that of the row names first.
        rows: Name and cells of each row.
        sortable: Whether a click on a title sorts.
        words: How many columns, from the left, hold words.
    """

    def head(label: str) -> str:
        return f'<th scope="col">{f"<button>{label}</button>" if sortable else label}</th>'

    def cell(item: Cell) -> str:
        value = "" if not finite(item.value) else f' data-value="{float(item.value or 0)!r}"'
        mark = ' class="best"' if item.best else ""
        return f"<td{mark}{value}>{item.shown}</td>"

    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(map(cell, cells))}</tr>' for name, cells in rows
    )
    kind = f"numbers words-{words}{' sortable' if sortable else ''}"
    return (
        f'<div class="scroll"><table class="{kind}">'
        f"<thead><tr>{''.join(map(head, heads))}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def dumps(value: Any) -> str:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
