"""What ``affectlens compare`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from affectlens.cli.consoles import stdout
from affectlens.core.jsonl import json_line

if TYPE_CHECKING:
    from affectlens.comparison import Comparison

_KINDS = ("neurons", "heads")


def print_comparison(found: Comparison, *, as_json: bool) -> None:
    """A row a layer; what stands in brackets is the control of what stands before it."""
    from rich.table import Table

    out = stdout()
    if as_json:
        out.out(json_line(found.to_dict()))
        return
    base, tuned = found.base["name"], found.tuned["name"]
    out.print(f"{base} beside {tuned}, on {found.corpus['name']}", soft_wrap=True, markup=False)
    names = ["layer", "probe base", "probe tuned", "difference (95 %)", "base's probe on tuned"]
    names += ["cosine (others)", "least"]
    names += [f"{kind} (chance, others)" for kind in _KINDS] if found.circuits else []
    table = Table(title="Means over the emotions; in brackets the control")
    for name in names:
        table.add_column(name, justify="right")
    for row in found.table_rows():
        table.add_row(*_cells(row, with_circuits=bool(found.circuits)))
    out.print(table)
    out.print(
        f"Always saying the most frequent emotion: {found.majority:.2f}. Probes: {found.held_out}. "
        "Others: the same with the other emotions of the tuned model.",
        soft_wrap=True,
    )
    for kind in _KINDS if found.circuits else ():
        seen, chance, others = found.overlap(kind, None)
        whole = [one for one in found.circuits if (one.kind, one.layer) == (kind, None)]
        out.print(
            f"Circuits, {kind} of all layers: {_two(seen)} of the units are in both "
            f"(chance {_two(chance)}, others {_two(others)}, largest p of an emotion "
            f"{max(one.p for one in whole):.2g}).",
            soft_wrap=True,
        )
    if not found.circuits:
        out.print(f"No circuits: {found.no_circuits}.", soft_wrap=True, markup=False)


def _cells(row: dict[str, Any], *, with_circuits: bool) -> list[str]:
    layer = "embeddings" if row["layer"] < 0 else str(row["layer"])
    cells = [layer, _two(row["probe_base"]), _two(row["probe_tuned"])]
    if row["difference"] is None:
        cells.append("-")
    else:
        cells.append(f"{row['difference']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f})")
    cells.append(_two(row["transfer"]))
    if row["cosine"] is None:
        cells += ["-", "-"]
    else:
        cells.append(f"{row['cosine']:.3f} ({row['others']:.2f})")
        cells.append(f"{row['least']:.3f} {row['least_of']}")
    for kind in _KINDS if with_circuits else ():
        chance, others = row[f"{kind}_chance"], row[f"{kind}_others"]
        cells.append(f"{_two(row[kind])} ({_two(chance)}, {_two(others)})")
    return cells


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
