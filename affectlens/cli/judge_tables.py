"""The table of ``affectlens judges check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.cli.consoles import narrow_table, print_lines, stdout

if TYPE_CHECKING:
    from affectlens.evaluation.judges.leave_one_out import HeldOutSource


def print_held_out(found: Sequence[HeldOutSource], *, as_json: bool = False) -> None:
    """A row per source; below it the mean, and the emotion that is heard least."""
    from affectlens.core import EMOTIONS
    from affectlens.evaluation.judges.training_data import SOURCES

    if as_json:
        print_lines(one.to_dict() for one in found)
        return
    title = "A judge on the source that it was fitted without: the likeliest of six emotions"
    table = narrow_table("", *(one.source for one in found), title=title)
    table.add_row("texts", *(str(one.n) for one in found))
    table.add_row("named rightly among six", *(f"{one.six_way:.2f}" for one in found))
    for emotion in EMOTIONS:
        recalls = (one.recall[emotion] for one in found)
        table.add_row(f"  {emotion}", *("–" if r is None else f"{r:.2f}" for r in recalls))
    table.add_row("among eight", *(f"{one.accuracy:.2f}" for one in found))
    out = stdout()
    out.print(table)
    for one in found:
        out.print(f"{one.source}: {SOURCES[one.source]}", style="dim")
    mean = sum(one.six_way for one in found) / len(found)
    told = [
        (r, e, one.source) for one in found for e in EMOTIONS if (r := one.recall[e]) is not None
    ]
    lowest, emotion, source = min(told)
    out.print(
        f"Mean of {len(found)} sources, among six: {mean:.2f}. "
        f"Lowest: {emotion} {lowest:.2f} ({source})."
    )
