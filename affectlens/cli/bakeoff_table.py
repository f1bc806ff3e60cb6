"""What ``affectlens bakeoff`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.evaluation.bakeoff import BakeOff


def print_bake_off(found: BakeOff, folder: Path, *, as_json: bool) -> None:
    """The honest columns, the front, and a winner per emotion."""
    from rich.table import Table

    from affectlens.evaluation.bakeoff.markdown import HEAD, lines

    if as_json:
        print_lines(found.table_rows())
        return
    out = stdout()
    table = Table(title=f"{found.model}: methods, each tuned on {found.budget:,} tokens at most")
    for i, name in enumerate(HEAD):
        table.add_column(name, justify="right" if i else "left")
    for cells in lines(found):
        table.add_row(*cells)
    out.print(table)
    out.print(f"Front (masked accuracy against perplexity): {', '.join(found.front) or 'none'}.")
    for one in found.winners:
        out.print(f"{one.emotion}: {one.words}.", soft_wrap=True, markup=False)
    out.print(f"Saved: {folder / 'bakeoff.md'}, {folder / 'bakeoff.json'}", soft_wrap=True)
