"""The tables of ``affectlens side-effects``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.evaluation.side_effects import SideEffect

SURE = 0.05


def print_side_effects(found: Sequence[SideEffect], *, as_json: bool = False) -> None:
    """A table of shares, then every change that is not chance, in words; or JSON lines."""
    from rich.table import Table

    from affectlens.pipeline.side_effects import side_effect_table

    if as_json:
        print_lines(asdict(one) for one in found)
        return
    out = stdout()
    rows = side_effect_table(found)
    emotions = list(dict.fromkeys(one.emotion for one in found))
    table = Table("suite", "dose", "unsteered", *emotions, title="Share of replies that pass")
    for row in rows:
        cells = [f"{row[name]:.2f}" for name in ("unsteered", *emotions)]
        table.add_row(row["suite"], f"{row['dose']:g}", *cells)
    out.print(table)
    changed = [one for one in found if one.p < SURE]
    for one in changed:
        low, high = one.ci
        out.print(
            f"{one.suite}, {one.emotion} at {one.dose:g}: {one.difference:+.2f} "
            f"({low:+.2f} to {high:+.2f}), p {one.p:.3f}, {one.n} prompts"
        )
    out.print(
        f"{len(changed)} of {len(found)} cells differ from unsteered at p < {SURE:g}, not "
        f"corrected for their number; about {SURE * len(found):.0f} would by chance."
    )
