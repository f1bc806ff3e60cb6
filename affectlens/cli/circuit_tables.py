"""Tables of what was measured on circuits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.circuits.evidence.efficiency import EfficiencyCurve


def print_efficiency(curve: EfficiencyCurve, saved: Path, *, as_json: bool) -> None:
    """Every arm by number of units, then the areas beside random units."""
    from rich.table import Table

    out = stdout()
    if as_json:
        print_lines(curve.table_rows())
        return
    table = Table(title="Replies in which the emotion is heard, all emotions")
    for i, name in enumerate(("units", "arm", "heard", "feeling words masked", "perplexity ratio")):
        table.add_column(name, justify="left" if i == 1 else "right")
    heights = {(row["units"], row["arm"]): row for row in curve.table_rows() if _pooled(row)}
    for count in curve.counts:
        for arm in curve.arms:
            row = heights[count, arm]
            table.add_row(
                str(count),
                arm,
                _share(row, "accuracy"),
                _share(row, "masked_accuracy"),
                f"{row['perplexity_ratio']:.2f}",
            )
        table.add_section()
    out.print(table)
    beside = Table(
        title="Area between the curve and that of random units, feeling words masked (p by Holm)"
    )
    for i, name in enumerate(("emotion", "arm", "mean height", "random", "difference (95 %)", "p")):
        beside.add_column(name, justify="left" if i < 2 else "right")
    for one in curve.areas():
        if one.measure == "masked_accuracy":
            found = one.difference
            beside.add_row(
                one.emotion,
                one.arm,
                f"{one.value:.2f}",
                f"{one.beside:.2f}",
                f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})",
                f"{one.p:.2g}",
            )
    out.print(beside)
    for arm in curve.arms:
        out.print(f"{arm}: {curve.enough(arm)} units lose nothing against its best number.")
    out.print(f"Saved: {saved}", soft_wrap=True)


def _pooled(row: dict[str, object]) -> bool:
    return row["emotion"] == "all"


def _share(row: dict[str, object], measure: str) -> str:
    low, high = row[f"{measure}_low"], row[f"{measure}_high"]
    return f"{row[measure]:.2f} ({low:.2f}-{high:.2f})"
