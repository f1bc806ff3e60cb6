"""What ``affectlens probe causal`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import print_lines, stdout

if TYPE_CHECKING:
    from affectlens.circuits.causal_table import CausalTable, Effect


def print_causal(found: CausalTable, saved: Path, *, as_json: bool) -> None:
    """A row per emotion and site, each effect with its interval and what random ones do."""
    from rich.table import Table

    out = stdout()
    if as_json:
        print_lines(found.table_rows())
        return
    heads = ["site", "emotion", "AUROC", "slope"]
    for task in found.tasks:
        heads += [f"fall: {task}", f"LEACE: {task}"]
    table = Table(title="Probe directions: detect, steer, silence (nats per token; random)")
    for head in (*heads, "cosine", "verdict"):
        table.add_column(head)
    for one in found.rows:
        cells = [one.site.replace("blocks.", "").replace(".hook_resid_post", ""), one.emotion]
        cells.append(f"{one.auroc[0]:.2f} ({one.auroc[1]:.2f}-{one.auroc[2]:.2f})")
        cells.append(_cell(one.steers))
        for task in found.tasks:
            cells += [_cell(one.silences[task]), _cell(one.erased[task])]
        cells.append("" if one.cosine is None else f"{one.cosine:.2f}")
        table.add_row(*cells, f"{one.verdict}; {one.erasure}")
    out.print(table)
    out.print(f"Saved: {saved}", soft_wrap=True)


def _cell(one: Effect) -> str:
    star = "*" if one.there else ""
    return f"{one.value:.3f}{star} ({one.low:.3f} to {one.high:.3f}; {one.random:.3f})"
