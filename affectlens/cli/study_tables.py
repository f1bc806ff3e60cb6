"""What ``affectlens probe study`` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.cli.consoles import narrow_table, print_lines, stdout

if TYPE_CHECKING:
    from rich.console import Console

    from affectlens.sweeps.studies import StudyResult

Row = Mapping[str, Any]
_SHOWN, _TURNS = 120, 40


def print_study(found: StudyResult, out: Path, *, as_json: bool) -> None:
    """Lines that have a control of their own, and where everything lies."""
    from rich.table import Table

    from affectlens.plotting.studies import worth_a_line

    if as_json:
        print_lines(found.table_rows())
        return
    console = stdout()
    if turns := found.tables.get("turns"):
        table = Table("dialogue", "turn", "role", "read", "labels", "without those before", "text")
        for row in turns[:_TURNS]:
            names = ("dialogue", "turn", "role", "read", "labels", "read_alone")
            table.add_row(*(str(row[name]) for name in names), str(row["text"])[:60])
        console.print(table)
    rows = [row for row in found.rows if worth_a_line(row)]
    if rows:
        console.print(f"{found.study}: {found.model}, {found.corpus}", style="bold")
        _print_groups(rows[:_SHOWN], console)
    if len(rows) > _SHOWN:
        console.print(f"{len(rows) - _SHOWN} more lines stand in the report.")
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)


def _print_groups(rows: Sequence[Row], console: Console) -> None:
    """A table for all lines of one kind; what they share stands above it, so names stay whole."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        shared = tuple(str(row[name]) for name in ("panel", "series", "measure", "control"))
        groups.setdefault(shared, []).append(row)
    width = max(len(str(row["x"])) for row in rows)
    for (panel, series, measure, control), members in groups.items():
        console.print(f"\n{panel} · {series}: {measure}; beside it: {control}", highlight=False)
        table = narrow_table(show_edge=False)
        table.add_column("", min_width=width)
        for head, least in (("value", 6), ("95 %", 15), ("beside", 6), ("p", 7)):
            table.add_column(head, justify="right", no_wrap=True, min_width=least)
        for row in members:
            ends = f"{row['low']:.3f} to {row['high']:.3f}" if math.isfinite(row["low"]) else ""
            p = f"{row['p']:.3g}" if math.isfinite(row["p"]) else ""
            beside = f"{row['beside']:.3f}"
            table.add_row(str(row["x"]), f"{row['value']:.3f}", ends, beside, p)
        console.print(table)
