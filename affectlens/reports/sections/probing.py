"""Sweeps over models, corpora and targets, beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from affectlens.plotting.sweeps import (
    SweepsSummary,
    depth_curves,
    learning_curves,
    scale_points,
    transfer_heatmap,
)
from affectlens.reports.markup import Cell, card, finite, number, plot, table, text

if TYPE_CHECKING:
    from affectlens.reports.data import ReportData

Row = Mapping[str, Any]


def probing(data: ReportData) -> str:
    """Depth curves, the chosen sites, controls, comparisons, transfer, learning curves."""
    found = data.sweeps
    if found is None:
        return ""
    parts = [_depth(found, measure) for measure in dict.fromkeys(c.measure for c in found.curves)]
    if found.controls:
        parts.append(_controls(found.controls))
    if any(row["question"] != "layers" for row in found.comparisons):
        parts.append(_comparisons(found.comparisons))
    parts += [_transfer(found, m) for m in dict.fromkeys(str(r["model"]) for r in found.transfer)]
    if found.learning:
        parts.append(
            card(
                "How many labelled groups are enough?",
                plot(learning_curves(found), "plot-learning", "Line chart: score by groups"),
                explain="<b>Reading it.</b> The chosen site's probe, fitted on growing shares of "
                "the groups and scored on the same held-out rows. <b>Limits.</b> Its penalty was "
                "chosen on all fitting rows.",
            )
        )
    if found.scale:
        parts.append(_scale(found))
    return "".join(parts)


def _depth(found: SweepsSummary, measure: str) -> str:
    curves = [curve for curve in found.curves if curve.measure == measure]
    rows = [
        (
            text(curve.title),
            [
                Cell(text(f"{curve.kind}, block {curve.layers[curve.best]}")),
                _value(curve.value[curve.best]),
                Cell(_interval(curve.low[curve.best], curve.high[curve.best])),
                _value(curve.chance),
            ],
        )
        for curve in curves
    ]
    heads = ("sweep", "chosen site", measure, "95 % interval", "always the same")
    figure = plot(depth_curves(found, measure), f"plot-depth-{measure}", "Line chart: by depth")
    return card(
        f"Read by depth: {measure}",
        figure + table(heads, rows, words=2),
        explain="<b>Reading it.</b> Every point is a probe of one site, scored on rows that it "
        "was neither fitted nor chosen on; bands are 95 % intervals over groups, rings the sites "
        "that cross-validation chose on fitting rows. <b>Limits.</b> That a label can be read "
        "says nothing of whether the model uses it.",
    )


def _controls(rows: Sequence[Row]) -> str:
    """One figure per control and measure: where there is one per site, the chosen or best one."""
    shown: list[tuple[str, list[Cell]]] = []
    for row in _one_per_measure(rows):
        where = " · ".join(str(row[k]) for k in ("model", "corpus", "target", "probe"))
        cells = [
            Cell(text(row["control"])),
            Cell(text(row["measure"])),
            _value(row["value"]),
            Cell(_interval(row["low"], row["high"])),
            Cell(number(row["p"], 3)),
            Cell(text(" · ".join(part for part in (str(row["site"]), str(row["note"])) if part))),
        ]
        shown.append((text(where), cells))
    heads = ("sweep", "control", "measure", "value", "95 % interval", "p", "where, of what")
    return card(
        "Controls",
        table(heads, shown, words=3),
        explain="<b>Reading it.</b> Each control asks the same where the answer should be poorer; "
        "<i>probe minus it</i> is the paired difference on the same held-out rows. Of controls "
        "with a figure at every site that of the probe's chosen site stands here; all are in "
        "<code>controls.parquet</code>.",
    )


def _one_per_measure(rows: Sequence[Row]) -> list[Row]:
    keys = ("model", "corpus", "target", "probe", "position", "kind", "control", "measure")
    by_key: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        by_key.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        next((row for row in alike if row.get("chosen")), alike[-1]) for alike in by_key.values()
    ]


def _comparisons(rows: Sequence[Row]) -> str:
    shown = [
        (
            text(" · ".join(str(row[k]) for k in ("model", "corpus", "target", "probe"))),
            [
                Cell(text(row["other"])),
                _value(row["difference"]),
                Cell(_interval(row["low"], row["high"])),
                Cell(number(row["p_holm"], 3)),
            ],
        )
        for row in rows
        if row["question"] != "layers"
    ]
    heads = ("this", "less that", "difference", "95 % interval", "p (Holm)")
    return card(
        "Models and probes in pairs",
        table(heads, shown, words=2),
        explain="<b>Reading it.</b> Paired differences on the same held-out rows, each at its own "
        "chosen site. Layers against the chosen one stand in <code>comparisons.parquet</code>.",
    )


def _transfer(found: SweepsSummary, model: str) -> str:
    figure = transfer_heatmap(found, model)
    name = "".join(c if c.isalnum() else "-" for c in model)
    return card(
        f"Transfer between corpora: {text(model)}",
        plot(figure, f"plot-transfer-{name}", "Heat map: fitted on, tested on"),
        explain="<b>Reading it.</b> The probe of one corpus at its chosen site, on the held-out "
        "rows of another; on the diagonal the sweep's own score.",
    )


def _scale(found: SweepsSummary) -> str:
    shown = [
        (
            text(" · ".join(str(row[k]) for k in ("corpus", "target", "probe", "model"))),
            [
                Cell(f"{int(row['parameters']):,}".replace(",", "\u202f"), row["parameters"]),
                Cell(text(row["site"])),
                _value(row["depth"]),
                Cell(_interval(row["peak_low"], row["peak_high"])),
                _value(row["value"]),
                Cell(_interval(row["low"], row["high"])),
                _value(row["embeddings"]),
            ],
        )
        for row in found.scale
    ]
    heads = ("model", "parameters", "chosen site", "its depth", "best of 95 % of draws", "score",
             "95 % interval", "embeddings")  # fmt: skip
    return card(
        "By the size of the model",
        plot(scale_points(found), "plot-scale", "Line chart: score by parameters")
        + table(heads, shown),
        explain="<b>Reading it.</b> Each model at the site that cross-validation chose; between "
        "the depths beside it lies the best site of 95 % of bootstrap draws of held-out groups. "
        "Models in pairs stand above. <b>Limits.</b> Models differ in more than their size.",
    )


def _value(value: float) -> Cell:
    return Cell(number(value, 3), value if finite(value) else None)


def _interval(low: float, high: float) -> str:
    return f"{number(low, 3)} to {number(high, 3)}" if finite(low) and finite(high) else "–"
