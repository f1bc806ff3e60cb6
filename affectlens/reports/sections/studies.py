"""Studies of probes: persistence, malleability, dialogues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from affectlens.plotting.studies import StudySummary, study_figure, worth_a_line
from affectlens.reports.markup import Cell, card, finite, number, plot, table, text

if TYPE_CHECKING:
    from affectlens.reports.data import ReportData

Row = Mapping[str, Any]
_MOST = 80  # lines of the table; all are in the files beside the page

_TITLES = {
    "persistence": "How long it stays readable in a reply",
    "malleability": "What a system prompt moves",
    "dialogue": "Turn by turn",
}
_EXPLAINED = {
    "persistence": "<b>Reading it.</b> One probe reads all offsets, each offset's mean removed; "
    "<i>the word alone</i> is the same probe on the embeddings, <i>length alone</i> on how long "
    "the reply is and how much of it is left; permuted labels change places between whole texts. "
    "<b>Limits.</b> The later the offset, the fewer replies reach it: it is read of long ones.",
    "malleability": "<b>Reading it.</b> Paired with no system prompt on the same texts, 95 % over "
    "groups. <i>Read without the prompt</i> is the same reply behind the user's message alone: "
    "what remains is in its words. The prompt <i>unrelated</i> says nothing of feelings: what it "
    "moves, any prompt would. <b>Limits.</b> The ruler is a probe of the same model.",
    "dialogue": "<b>Reading it.</b> Calibrated probabilities of each turn where it stands; dotted, "
    "the same turn without those before it. <b>Limits.</b> A probe that was fitted on replies "
    "reads users' messages by its own light.",
}


def studies(data: ReportData) -> str:
    """A card for each study."""
    return "".join(_card(one, i) for i, one in enumerate(data.studies))


def _card(found: StudySummary, index: int) -> str:
    figure = plot(study_figure(found), f"plot-study-{index}", f"Figure: {found.study}")
    shown = [row for row in found.rows if worth_a_line(row)]
    rows = [
        (
            text(f"{row['panel']} · {row['series']}"),
            [
                Cell(text(row["x"])),
                Cell(text(row["measure"])),
                Cell(number(row["value"], 3), row["value"] if finite(row["value"]) else None),
                Cell(_interval(row)),
                Cell(number(row["beside"], 3)),
                Cell(text(row["control"])),
                Cell(number(row["p"], 3)),
            ],
        )
        for row in shown[:_MOST]
    ]
    heads = ("what", "where", "measure", "value", "95 % interval", "beside", "which is", "p")
    return card(
        _TITLES.get(found.study, text(found.study)),
        figure + table(heads, rows, words=3),
        explain=_EXPLAINED.get(found.study, ""),
    )


def _interval(row: Row) -> str:
    if not (finite(row["low"]) and finite(row["high"])):
        return "–"
    return f"{number(row['low'], 3)} to {number(row['high'], 3)}"
