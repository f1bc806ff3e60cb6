"""What ``affectlens probe study`` prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.sweeps.studies import StudyResult

_SHOWN = 40


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
        for row in turns[:_SHOWN]:
            names = ("dialogue", "turn", "role", "read", "labels", "read_alone")
            table.add_row(*(str(row[name]) for name in names), str(row["text"])[:60])
        console.print(table)
    table = Table(title=f"{found.study}: {found.model}, {found.corpus}")
    for head in ("about", "what", "where", "measure"):
        table.add_column(head)
    for head in ("value", "95 % interval", "beside", "p"):
        table.add_column(head, justify="right")
    rows = [row for row in found.rows if worth_a_line(row)]
    for row in rows[:_SHOWN]:
        ends = f"{row['low']:.3f} to {row['high']:.3f}" if math.isfinite(row["low"]) else ""
        beside = f"{row['beside']:.3f} ({row['control']})"
        p = f"{row['p']:.3g}" if math.isfinite(row["p"]) else ""
        names = (str(row[k]) for k in ("panel", "series", "x", "measure"))
        table.add_row(*names, f"{row['value']:.3f}", ends, beside, p)
    if rows:
        console.print(table)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
