"""What ``affectlens reproduce`` prints."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.cli.consoles import stderr, stdout
from affectlens.core.artefact import read_json
from affectlens.core.jsonl import json_line

if TYPE_CHECKING:
    from affectlens.core.registry import Registry
    from affectlens.pipeline.engine import Stage
    from affectlens.reproductions import Reproduction, StudyRequest


def reproduce_with_progress(request: StudyRequest) -> Path:
    """Run a study, saying on stderr which steps are done."""
    from affectlens.reproductions import reproduce

    err = stderr()

    def on_stage(stage: Stage, what: str, seconds: float) -> None:
        if what == "started":
            err.print(f"[bold]{stage.name:<11}[/] {stage.title}")
        elif what == "done":
            err.print(f"[green]{stage.name:<11}[/] done in {seconds:.1f} s")
        else:
            err.print(f"[dim]{stage.name:<11} unchanged[/]")

    return reproduce(request, on_stage=on_stage)


def print_reproductions(table: Registry[Reproduction], *, as_json: bool) -> None:
    """Every study: name, paper, steps and corrections."""
    out = stdout()
    for study in table.values():
        steps = [step.name for step in study.steps]
        if as_json:
            row = {
                "name": study.name,
                "help": study.help,
                "paper": study.paper,
                "steps": steps,
                "corrections": {one.name: one.help for one in study.corrections},
            }
            out.print(json_line(row), soft_wrap=True, markup=False)
            continue
        out.print(f"[bold]{study.name}[/]  {study.paper}\n  {study.help}")
        out.print(f"  steps: {', '.join(steps)}")
        for one in study.corrections:
            out.print(f"  --correct {one.name}: {one.help}")


def print_comparison(folder: Path, *, as_json: bool) -> None:
    """The figures of a finished reproduction beside the paper's, a table per section."""
    from rich.table import Table

    from affectlens.reproductions.writing import cells

    found: dict[str, Any] = read_json(folder / "figures.json")
    out = stdout()
    if as_json:
        for row in found["figures"]:
            out.print(json_line(row), soft_wrap=True, markup=False)
        return
    out.print(f"{found['study']} ({found['paper']}) on {found['model']}", markup=False)
    for name, what in found["deviations"].items():
        out.print(f"  {name}: {what}", markup=False)
    for section, rows in groupby(found["figures"], key=lambda row: row["section"]):
        table = Table(title=section, title_justify="left")
        for i, name in enumerate(("", "paper", "here", "95 %", "control")):
            table.add_column(name, justify="right" if 0 < i < 4 else "left")
        for row in rows:
            table.add_row(*cells(row)[:5])
        out.print(table)
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True, markup=False)
