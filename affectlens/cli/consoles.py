"""Where the command line writes: results, and what is told beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def stdout() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False)


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
