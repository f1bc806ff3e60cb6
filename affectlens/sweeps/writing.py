"""What a sweep leaves in its folder: tables, figures, and a page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.core.artefact import package_version, write_json, write_text
from affectlens.core.parquet import write_parquet
from affectlens.plotting.sweeps import (
    DepthCurve,
    SweepsSummary,
    depth_curves,
    learning_curves,
    scale_points,
    transfer_heatmap,
)
from affectlens.reports import Header, ReportData, plain, write
from affectlens.sweeps.results import Cell, Row, SweepResults
from affectlens.sweeps.scale import scale_rows

if TYPE_CHECKING:
    import plotly.graph_objects as go

RESULTS, REPORT, FIGURES = "results.json", "report.html", "figures"

_BESIDE = {
    ("untrained", "accuracy"): "untrained",
    ("untrained", "pearson"): "untrained",
    ("control_task", "accuracy by group"): "control task, by group",
    ("control_task", "accuracy by word"): "control task, by word",
    ("permutation", "accuracy, permuted"): "permuted labels",
}
"""Controls that have a figure at every site and the scale of the probe's own."""


def write_results(found: SweepResults, folder: Path) -> None:
    """Write ``results.json`` and ``results.parquet`` (every score of every site), the other tables
    beside them, ``figures/*.html`` and ``report.html``.

    Raises:
        ArtefactError: If the folder cannot be written.
    """
    tables = {
        "results": found.table_rows(),
        "comparisons": list(found.comparisons),
        "controls": with_chosen(found),
        "transfer": list(found.transfer),
        "learning": list(found.curves),
        "scale": scale_rows(found.cells),
    }
    for name, rows in tables.items():
        if rows:
            write_parquet(folder / f"{name}.parquet", rows)
    write_json(
        folder / RESULTS,
        plain(
            {
                "affectlens": package_version(),
                "best": found.best_rows(),
                "confusion": [_confusion(cell) for cell in found.cells],
                **tables,
                "probes": {cell.file: cell.name for cell in found.cells},
            }
        ),
    )
    summary = summarise(found)
    for name, figure in _figures(summary).items():
        page = str(figure.to_html(include_plotlyjs=True, full_html=True))
        write_text(folder / FIGURES / f"{name}.html", page)
    write(report_data(found, summary), folder / REPORT)


def with_chosen(found: SweepResults) -> list[Row]:
    """The table of controls; ``chosen`` marks the site that the sweep's cross-validation chose."""
    best = {tuple(c.name.values()): c.sweep.best.hook_name for c in found.cells}
    names = ("model", "corpus", "target", "probe", "position", "kind")
    return [
        {**row, "chosen": row["site"] == best[tuple(row[name] for name in names)]}
        for row in found.controls
    ]


def summarise(found: SweepResults) -> SweepsSummary:
    """The numbers that figures and page show."""
    return SweepsSummary(
        curves=[_curve(cell, found.controls) for cell in found.cells],
        controls=with_chosen(found),
        comparisons=list(found.comparisons),
        transfer=list(found.transfer),
        learning=list(found.curves),
        scale=scale_rows(found.cells),
    )


def _curve(cell: Cell, controls: Sequence[Row]) -> DepthCurve:
    rows = [row for row in cell.rows() if row["score"] == cell.measure]
    beside: dict[str, dict[str, float]] = {}
    for row in controls:
        name = _BESIDE.get((row["control"], row["measure"]))
        if name and row["site"] and all(row[k] == v for k, v in cell.name.items()):
            beside.setdefault(name, {})[row["site"]] = float(row["value"])
    return DepthCurve(
        model=cell.model,
        corpus=cell.corpus,
        target=cell.target,
        probe=cell.probe,
        kind=cell.kind,
        measure=cell.measure,
        layers=[row["layer"] for row in rows],
        depth=[row["depth"] for row in rows],
        value=[row["value"] for row in rows],
        low=[row["low"] for row in rows],
        high=[row["high"] for row in rows],
        best=cell.best,
        chance=cell.chance,
        beside={
            name: [of_site.get(row["site"], float("nan")) for row in rows]
            for name, of_site in beside.items()
        },
    )


def _figures(summary: SweepsSummary) -> dict[str, go.Figure]:
    found = {
        f"depth_{measure}": depth_curves(summary, measure)
        for measure in dict.fromkeys(curve.measure for curve in summary.curves)
    }
    for i, model in enumerate(dict.fromkeys(str(row["model"]) for row in summary.transfer)):
        found[f"transfer_{i + 1}"] = transfer_heatmap(summary, model)
    if summary.learning:
        found["learning_curves"] = learning_curves(summary)
    if summary.scale:
        found["scale"] = scale_points(summary)
    return found


def report_data(found: SweepResults, summary: SweepsSummary | None = None) -> ReportData:
    """What the page shows."""
    cells = found.cells
    models = ", ".join(dict.fromkeys(cell.model for cell in cells))
    return ReportData(
        Header(
            models,
            corpus=", ".join(dict.fromkeys(cell.corpus for cell in cells)),
            date=date.today().isoformat(),
            package_version=package_version(),
            facts={
                "held out": ", ".join(dict.fromkeys(map(_held_out, cells))),
                "targets": ", ".join(dict.fromkeys(cell.target for cell in cells)),
            },
        ),
        sweeps=summary or summarise(found),
    )


def _held_out(cell: Cell) -> str:
    held = cell.sweep.held
    return f"{cell.sweep.held_out}: {len(held):,} rows of {len(set(held.groups)):,} groups"


def _confusion(cell: Cell) -> dict[str, Any]:
    """Of the chosen site: rows of each class said to be of each class."""
    counts = cell.sweep.scores.confusion[cell.best]
    classes = cell.sweep.held.classes
    return {**cell.name, "classes": list(classes), "counts": np.asarray(counts).tolist()}
