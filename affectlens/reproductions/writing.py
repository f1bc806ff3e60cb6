"""The comparison on disk: JSON, Parquet, Markdown and a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.artefact import write_json, write_text
from affectlens.core.parquet import write_parquet
from affectlens.reproductions.comparison import Row

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

FILES = ("figures.json", "figures.parquet", "report.md", "report.html")
HEAD = ("figure", "paper", "here", "95 % interval", "control", "where in the paper, notes")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.25rem .6rem;text-align:left;vertical-align:top}"
)


def facts_of(run: StudyRun) -> dict[str, Any]:
    """What was run, and how it differs from the published study."""
    request = run.request
    return {
        "study": run.study.name,
        "paper": run.study.paper,
        "model": request.model,
        "scenarios": str(request.scenarios or "ours"),
        "groups": request.groups,
        "events": request.events,
        "accept": request.accept,
        "judge told the target": request.endpoint_model or "none",
        "deviations": {
            one.name: f"corrected: {one.help}"
            if one.name in request.corrections
            else f"as published: {one.published}"
            for one in run.study.corrections
        },
        "always different": list(run.study.remarks),
    }


def write_comparison(folder: Path, facts: dict[str, Any], rows: Sequence[Row]) -> tuple[str, ...]:
    """Write all four files, and name them."""
    flat = [row.flat() for row in rows]
    write_json(
        folder / "figures.json",
        {
            **facts,
            "figures": [
                {**one, "paper_value": row.paper.value, "value": row.here and row.here.value}
                for one, row in zip(flat, rows, strict=True)
            ],
        },
    )
    write_parquet(folder / "figures.parquet", flat)
    write_text(folder / "report.md", markdown(facts, flat))
    write_text(folder / "report.html", page(facts, flat))
    return FILES


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as the tables show it, in the order of `HEAD`."""
    interval = "" if row["low"] is None else f"{row['low']:.3g} to {row['high']:.3g}"
    control = f"{row['control']} ({row['beside']})" if row["control"] else ""
    notes = "; ".join(part for part in (row["where"], row["note"]) if part)
    return row["what"], row["paper"], row["here"], interval, control, notes


def markdown(facts: dict[str, Any], flat: Sequence[dict[str, Any]]) -> str:
    """The report as Markdown."""
    lines = [f"# {facts['study']} on {facts['model']}", "", f"{facts['paper']}", ""]
    lines += [f"- {line}" for line in _about(facts)]
    for section, members in groupby(flat, key=lambda row: row["section"]):
        lines += ["", f"## {section}", "", _pipes(HEAD), _pipes("---" for _ in HEAD)]
        lines += [_pipes(cells(row)) for row in members]
    return "\n".join(lines) + "\n"


def page(facts: dict[str, Any], flat: Sequence[dict[str, Any]]) -> str:
    """The report as one page without scripts."""
    title = html.escape(f"{facts['study']} on {facts['model']}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(facts['paper'])}</p><ul>",
        *(f"<li>{html.escape(line)}</li>" for line in _about(facts)),
        "</ul>",
    ]
    for section, members in groupby(flat, key=lambda row: row["section"]):
        parts.append(f"<h2>{html.escape(section)}</h2><table><tr>{_cells('th', HEAD)}</tr>")
        parts += [f"<tr>{_cells('td', cells(row))}</tr>" for row in members]
        parts.append("</table>")
    return "\n".join(parts) + "</html>\n"


def _about(facts: dict[str, Any]) -> list[str]:
    material = (
        f"Scenarios: {facts['scenarios']}; groups {facts['groups'] or 'all'}, test events "
        f"{facts['events'] or 'all'}; accepted: {facts['accept']}; judge told the target: "
        f"{facts['judge told the target']}."
    )
    deviations = [f"{name}: {what}." for name, what in facts["deviations"].items()]
    return [material, *deviations, *facts["always different"]]


def _pipes(parts: Any) -> str:
    return "| " + " | ".join(str(part).replace("|", "\\|") for part in parts) + " |"


def _cells(tag: str, parts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(part)}</{tag}>" for part in parts)
