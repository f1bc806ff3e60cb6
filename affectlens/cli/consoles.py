"""Where the command line writes: results, and what is told beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False)


def narrow_table(*heads: str, **options: Any) -> Table:
    """A table that fits into 80 columns: no frame, whole names, the first column on the left."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), **options)
    for i, head in enumerate(heads):
        table.add_column(head, justify="right" if i else "left", no_wrap=True)
    return table


def print_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as JSON, a line each, to where results go."""
    from affectlens.core.jsonl import json_line

    out = stdout()
    for row in rows:
        out.out(json_line(dict(row)))


def told(name: str, what: str) -> None:
    """A line of what is at work, to where progress goes."""
    stderr().print(f"{name}: {what}", soft_wrap=True, markup=False)


def stderr() -> Console:
    """Where progress goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
