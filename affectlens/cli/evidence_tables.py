"""What the commands print of circuits and their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.cli.consoles import narrow_table, print_lines, stdout
from affectlens.core.errors import ArtefactError

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
    from affectlens.circuits.verdict import Evidence


def print_evidence(evidence: Evidence, folder: Path, *, as_json: bool) -> None:
    """The verdict on every emotion, and where its numbers are."""
    out = stdout()
    if as_json:
        print_lines([*evidence.table_rows(), *evidence.smallest_rows()])
        return
    print_verdict(evidence)
    out.print(f"All numbers: {folder}", soft_wrap=True)


def print_verdict(evidence: Evidence) -> None:
    """A row for every emotion, a column for every word."""
    from rich.table import Table

    from affectlens.circuits.verdict import WORDS

    table = Table("emotion", *WORDS, title="What may be said of each emotion's units")
    for emotion in evidence.findings:
        table.add_row(emotion, *(str(evidence.finding(emotion, word)) for word in WORDS))
    out = stdout()
    out.print(table)
    for word in WORDS:
        if found := evidence.told(word):
            what = f"{found.what}; task {found.task}, {found.texts} texts, {found.draws} draws"
            file = f", {found.file}" if found.file else ""
            out.print(f"{word}: {what}{file}", soft_wrap=True, markup=False)
    for emotion, enough in evidence.smallest.items():
        out.print(f"enough for {emotion}: {enough}", soft_wrap=True, markup=False)


def print_circuit(circuit: Circuit, file: Path, folder: Path, *, as_json: bool) -> None:
    """What it is, and the verdict, or that it is untested."""
    from affectlens.circuits.verdict import UNTESTED

    out, evidence = stdout(), circuit.evidence
    if as_json:
        rows: list[dict[str, object]] = [{"circuit": str(file), **circuit.brief()}]
        if evidence is not None:
            rows += [*evidence.table_rows(), *evidence.smallest_rows()]
        print_lines(rows)
        return
    for name, value in circuit.brief().items():
        if name != "evidence":
            out.print(f"{name:<9} {value}", soft_wrap=True, markup=False)
    if evidence is None:
        out.print(
            f"evidence  {UNTESTED}; test it with `affectlens circuit evidence --circuit {file}`.",
            soft_wrap=True,
        )
        return
    print_verdict(evidence)
    if folder.is_dir():
        out.print(f"All numbers: {folder} (--part NAME shows those of a part)", soft_wrap=True)


def print_part(folder: Path, name: str, *, as_json: bool) -> None:
    """The rows of one part.

    Raises:
        UnknownNameError: If there is no such part.
        ArtefactError: If it was not measured, or its file is damaged.
    """
    from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
    from affectlens.circuits.evidence.parts import PARTS

    row = PARTS[name]
    file = folder / row.file
    if not file.is_file():
        raise ArtefactError(
            f"There is no {name} in {folder}; measure it with `affectlens circuit evidence "
            f"--parts {name}`."
        )
    found = row.kind.load(file)
    print_table(found.table_rows(), row.help, as_json=as_json)
    if isinstance(found, FaithfulnessCurve):
        print_hypotheses(found, as_json=as_json)


def print_hypotheses(curve: FaithfulnessCurve, *, as_json: bool) -> None:
    """What tests of the circuit as a hypothesis say of it."""
    from affectlens.circuits.evidence.hypotheses import hypotheses

    rows = [one.table_row() for one in hypotheses(curve)]
    print_table(rows, "The circuit as a hypothesis (p by Holm)", as_json=as_json)


def print_table(rows: Sequence[Mapping[str, object]], title: str, *, as_json: bool) -> None:
    """Rows as JSON lines, or as tables: columns that do not fit come in one more, below."""
    if as_json:
        print_lines(rows)
        return
    console = stdout()
    console.print(title, soft_wrap=True)
    cells = {head: [_cell(row.get(head, "")) for row in rows] for head in rows[0]}
    names = [head for head in cells if isinstance(rows[0][head], str)]
    for heads in _fitting(cells, names, console.width):
        table = narrow_table()
        for head in heads:
            right = "left" if head in names else "right"
            table.add_column(
                head.replace("_", "\n"), justify=right, no_wrap=True, vertical="bottom"
            )
        for row in zip(*(cells[head] for head in heads), strict=True):
            table.add_row(*row)
        console.print(table)


def _fitting(
    cells: Mapping[str, Sequence[str]], names: Sequence[str], width: int
) -> list[list[str]]:
    """The columns of each table, those of names in all of them."""

    def wide(head: str) -> int:
        return 2 + max(map(len, [*head.split("_"), *cells[head]]))

    taken = sum(map(wide, names))
    tables, left = [list(names)], width - taken - 1
    for head in (head for head in cells if head not in names):
        if wide(head) > left and len(tables[-1]) > len(names):
            tables.append(list(names))
            left = width - taken - 1
        tables[-1].append(head)
        left -= wide(head)
    return tables


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
