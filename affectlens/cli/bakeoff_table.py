"""What ``affectlens bakeoff`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.evaluation.bakeoff import BakeOff


WIDE = 150
"""Columns of a terminal that the whole table needs; a narrower one gets the numbers alone."""
NARROW: Mapping[str, str] = {
    "method": "method",
    "heard": "heard",
    "feeling words masked": "masked",
    "copied openers": "copied",
    "perplexity ratio": "ratio",
    "topic": "topic",
    "harmonic, masked": "harmonic",
    "front": "front",
}
"""What remains, and under which name."""


def print_bake_off(found: BakeOff, folder: Path, *, as_json: bool) -> None:
    """The honest columns, the front, and a winner per emotion."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from affectlens.evaluation.bakeoff.markdown import CONTROL, HEAD, lines

    if as_json:
        print_lines(found.table_rows())
        return
    out = stdout()
    table = Table(title=f"{found.model}: methods, each tuned on {found.budget:,} tokens at most")
    narrow = out.width < WIDE
    shown = NARROW if narrow else {name: name for name in HEAD}
    if narrow:
        table.box, table.pad_edge, table.padding = SIMPLE_HEAD, False, (0, 1, 0, 0)
    for i, name in enumerate(shown.values()):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for cells in lines(found, intervals=not narrow):
        row: dict[str, str] = dict(zip(HEAD, cells, strict=True))
        if narrow:
            row["method"] = row["method"].replace(CONTROL, " *")
        table.add_row(*(row[name] for name in shown))
    out.print(table)
    if narrow:
        out.print("* a control. Intervals over scenarios and other columns stand in bakeoff.md.")
    out.print(f"Front (masked accuracy against perplexity): {', '.join(found.front) or 'none'}.")
    for one in found.winners:
        out.print(f"{one.emotion}: {one.words}.", soft_wrap=True, markup=False)
    out.print(f"Saved: {folder / 'bakeoff.md'}, {folder / 'bakeoff.json'}", soft_wrap=True)
