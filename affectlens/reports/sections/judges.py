"""How far the rulers themselves can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens import plotting as figures
from affectlens.plotting.judges import pooled_confusion
from affectlens.reports.markup import Cell, card, percent, plot, table, text

if TYPE_CHECKING:
    from affectlens.reports.data import ReportData

FITTED_ON = {
    "encoder": "its own training texts",
    "lexicon": "nothing: a word list",
    "words": "groups of this corpus that give no directions",
    "classifier": "texts of its maker",
    "endpoint": "nothing: asked for a label",
}
"""What each judge has learned from."""


def _confusion_card(index: int, judged: Mapping[str, Any]) -> str:
    _, counts = pooled_confusion(judged)
    right = float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")
    return card(
        f"Judge: {text(judged['judge'])}",
        plot(
            figures.confusion(judged),
            f"plot-confusion-{index}",
            f"Heat map: confusion matrix of {judged['judge']}",
        ),
        finding=f"Right on <b>{percent(right, 1)}</b> of texts whose tone is known.",
    )


def _of_arm(found: Mapping[str, Any], name: str) -> Cell:
    value = found.get("as_arm", {}).get(name)
    return Cell("–") if value is None else Cell(percent(value, 1), value)


def judges(data: ReportData) -> str:
    """How good the rulers are."""
    if not data.judges:
        return ""
    cards = [_confusion_card(index, judged) for index, judged in enumerate(data.judges)]
    out = (
        '<p class="muted">Judges are fitted on scenarios that gave no direction. Where a judge '
        "confuses two emotions, no steering method can look better than the ruler.</p>"
    )
    body = "".join(cards)
    out += f'<div class="pair">{body}</div>' if len(cards) > 1 else body
    rows = [
        (
            text(judged["judge"]),
            [
                Cell(text(FITTED_ON.get(judged["judge"], "–"))),
                Cell(text(asked)),
                Cell(percent(found["accuracy"], 1), found["accuracy"]),
                *(_of_arm(found, name) for name in ("accuracy", "masked_accuracy")),
                Cell(str(found["n"]), found["n"]),
            ],
        )
        for judged in data.judges
        for asked, found in judged["corpora"].items()
    ]
    if rows:
        out += card(
            "Judges across corpora",
            table(
                [
                    "judge",
                    "fitted on",
                    "asked about",
                    "accuracy",
                    "emotional texts",
                    "feeling words masked",
                    "texts",
                ],
                rows,
                sortable=True,
                words=3,
            ),
            explain="<b>Reading it.</b> A judge that only works on the corpus it was fitted on "
            "hears that corpus's style, not the emotion. <b>Emotional texts</b>, plain and with "
            "feeling words masked, are measured as the arms are: what people's own texts score is "
            "the most that steered replies can be expected to.",
        )
    return out
