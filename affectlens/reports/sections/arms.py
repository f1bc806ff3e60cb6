"""Whether steered text is heard as meant, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from affectlens import plotting as figures
from affectlens.evaluation.arms import UNSTEERED
from affectlens.plotting.arms import arm_title, targets
from affectlens.reports.markup import Cell, card, finite, number, percent, plot, table, text
from affectlens.reports.sections.comparisons import comparison_card

if TYPE_CHECKING:
    from affectlens.evaluation import ArmMetrics
    from affectlens.reports.data import ReportData

_COLUMNS: Sequence[tuple[str, str, str]] = (
    # attribute, head, how shown
    ("lexicon_accuracy", "accuracy, lexicon", "percent"),
    ("perplexity_ratio", "perplexity ratio", "number"),
    ("distinct2", "distinct‑2", "number"),
    ("repetition", "repetition", "percent"),
    ("capitals", "capitals", "percent"),
    ("topic", "topic kept", "number"),
    ("harmonic", "harmonic mean", "number"),
    ("masked_harmonic", "harmonic mean, masked", "number"),
)
_SHARES: Sequence[tuple[str, str]] = (
    ("accuracy", "accuracy, 95 % interval"),
    ("masked_accuracy", "feeling words masked"),
    ("later_accuracy", "without first sentence"),
    ("copied_openers", "copied openers"),
)
_BEST = ("accuracy", "harmonic")
"""Measures whose best arm is marked."""


def _arms_table(arms: Mapping[str, ArmMetrics]) -> str:
    def measured(name: str) -> bool:
        return any(finite(getattr(arm, name)) for arm in arms.values())

    shares = [c for c in _SHARES if c[0] == "accuracy" or measured(c[0])]
    shown = [c for c in _COLUMNS if measured(c[0])]
    best = {
        name: max((v for arm in arms.values() if finite(v := getattr(arm, name))), default=None)
        for name in _BEST
    }
    rows: list[tuple[str, list[Cell]]] = []
    for name, arm in arms.items():
        cells = [_share(arm, column, best.get(column)) for column, _ in shares]
        for column, _, kind in shown:
            value: float = getattr(arm, column)
            rendered = percent(value, 1) if kind == "percent" else number(value)
            cells.append(Cell(rendered, value, finite(value) and value == best.get(column)))
        cells.append(Cell(str(arm.n), arm.n))
        rows.append((text(arm_title(name)), cells))
    heads = ["arm", *(head for _, head in shares), *(head for _, head, _ in shown), "texts"]
    return table(heads, rows, sortable=True)


def _share(arm: ArmMetrics, name: str, best: float | None) -> Cell:
    """A share with its interval, where there is one."""
    value: float = getattr(arm, name)
    low, high = getattr(arm, f"{name}_ci")
    if not finite(value):
        return Cell("–")
    interval = ""
    if finite(low) and finite(high):
        interval = f" <small>{percent(low)} to {percent(high)}</small>"
    return Cell(f"{percent(value, 1)}{interval}", value, value == best)


def _scale(data: ReportData) -> str:
    """What texts of people score with the judge of the arms."""
    corpora = data.judges[0]["corpora"] if data.judges else {}
    found = next((one["as_arm"] for one in corpora.values() if "as_arm" in one), None)
    if found is None:
        return ""
    return (
        f" For scale: of emotional texts of people, on scenarios it has not seen, the judge names "
        f"{percent(found['accuracy'], 1)} rightly, {percent(found['masked_accuracy'], 1)} with "
        "feeling words masked."
    )


def arms(data: ReportData) -> str:
    """Arms compared: bars, table, pairs, per emotion."""
    found = data.arms
    if not found:
        return ""
    name = max(found, key=lambda n: found[n].accuracy if finite(found[n].accuracy) else -1.0)
    best = found[name]
    finding = f"Heard most often: <b>{text(arm_title(name))}</b>, {percent(best.accuracy, 1)}"
    masked = finite(best.masked_accuracy)
    if masked:
        finding += f" ({percent(best.masked_accuracy, 1)} with feeling words masked)"
    if name != "prompted" and "prompted" in found:
        asked = found["prompted"].accuracy
        finding += f", against {percent(asked, 1)} when the model is asked in words"
    line = ""
    if UNSTEERED in found:
        false_hits = percent(found[UNSTEERED].accuracy, 1)
        line = (
            f" The dashed line, {false_hits}, is how often the judge hears a target in text that "
            "nobody steered: its false hits, measured, not a guess at 1 in "
            f"{len(targets(found))}."
        )
    diamond = " Diamonds: the same with feeling words masked." if masked else ""
    scale = _scale(data)
    out = card(
        "Emotion heard, and what it costs",
        plot(
            figures.arms_bars(found),
            "plot-arms",
            "Bars: accuracy and perplexity ratio of every arm",
        ),
        finding=finding + ".",
        explain="<b>Reading it.</b> Left: the share of replies in which a judge that does not "
        f"know the target hears it, with its 95 % interval over scenarios.{diamond}{line}"
        f"{scale} Right: "
        "how much more the text surprises the unsteered model. <b>Limits.</b> Accuracy without "
        "fluency is easy: read both. Controls leave one thing out each: the refining, the choice "
        "of units, the direction.",
    )
    naming = ""
    if any(finite(arm.masked_accuracy) for arm in found.values()):
        naming = (
            "<b>Feeling words masked</b>: accuracy after every entry of the feeling lexicon has "
            "been taken out of the reply, so that naming the feeling does not count. <b>Without "
            "first sentence</b>: accuracy of what follows it; a reply of one sentence is a miss, "
            "since nothing is left. <b>Copied openers</b>: share of replies that begin with three "
            "words of an opener that the vectors were made from. "
        )
    out += card(
        "All measures",
        _arms_table(found),
        explain=naming + "<b>Distinct‑2</b>: share of word pairs that are not repeats, higher is "
        "more varied. <b>Repetition</b> and <b>capitals</b>: high values are the usual ways "
        "steered text goes wrong. <b>Topic kept</b>: similarity of the reply to its prompt. "
        "<b>Harmonic mean</b> of the emotion, topic and fluency scores: one bad score pulls it "
        "down. The best accuracy and the best harmonic mean are in bold.",
    )
    out += comparison_card(data)
    if targets(found):
        out += card(
            "Emotion by emotion",
            plot(
                figures.per_emotion_heatmap(found),
                "plot-per-emotion",
                "Heat map: accuracy by arm and target emotion",
            ),
            explain="<b>Reading it.</b> The same accuracy for each target emotion. <b>Limits.</b> "
            "Few texts per cell: differences of a few points are noise. A judge that favours one "
            "emotion lifts that whole column, the unsteered row included.",
        )
    return out
