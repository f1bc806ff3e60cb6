"""What may be said of the circuit, and the numbers each word rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens import plotting as figures
from affectlens.circuits.verdict import UNTESTED, WORDS
from affectlens.reports.markup import Cell, card, dot, percent, plot, table, text

if TYPE_CHECKING:
    from affectlens.plotting import CurveSummary, EvidenceSummary
    from affectlens.plotting.evidence_summary import ChoiceSummary, LeftSummary
    from affectlens.reports.data import ReportData

_TITLES = {
    "ablation": "Without the strongest units",
    "resampling": "The same, with values of other tones in their place",
    "heads": "Without the strongest heads",
    "enhancement": "Texts of other tones, the units set",
    "untrained": "The same places in the model before training",
}


def _verdict(found: EvidenceSummary) -> str:
    heads = ("emotion", *(text(word) for word in WORDS), *(["enough"] if found.enough else []))
    rows = [
        (
            dot(emotion, i) + text(emotion),
            [
                *(Cell(text(words[word])) for word in WORDS),
                *([Cell(text(found.enough.get(emotion, "untested")))] if found.enough else []),
            ],
        )
        for i, (emotion, words) in enumerate(found.said.items())
    ]
    explain = "<b>Reading it.</b> " + " ".join(
        f"<i>{text(word)}</i>: {text(what)}." for word, what in found.what.items()
    )
    if found.enough:
        explain += (
            " <i>enough</i>: the smallest share of the ranking that alone keeps half of the "
            "margin, and more than as many random units."
        )
    return card(
        "What may be said of each emotion's units",
        table(heads, rows, words=len(heads)),
        explain=explain + " <b>Limits.</b> On one task, in small: "
        "<code>affectlens circuit evidence</code> tests more texts, draws and parts. A word that "
        "failed says that it was not shown here, not that the opposite was.",
    )


def _curve(name: str, found: CurveSummary) -> str:
    change = "fall" if found.kind == "ablation" else "rise"
    what = {"mean": "means", "resample": "values at tokens of other tones", "zero": "zeros"}
    put = what.get(found.by, found.by) if found.kind == "ablation" else "values in that tone"
    return card(
        _TITLES.get(name, text(name)),
        plot(figures.k_curves(found), f"plot-evidence-{name}", f"Line charts: {name} by units"),
        explain=f"<b>Reading it.</b> The {change} of an emotion's margin, nats per token, as more "
        f"of its {text(found.units)} have {text(put)} in their place, over {found.texts} texts; "
        f"grey is the range of {found.draws} draws of as many random units of the same layers, "
        "dotted what the same units do to the other emotions. <b>Limits.</b> A line within the "
        "band shows nothing; where it is far above, the dotted one says whether it is this "
        "emotion's alone.",
    )


def _left(found: LeftSummary) -> str:
    pairs = zip(found.emotions, found.circuit, found.circuit_random, strict=True)
    alone = ", ".join(f"{text(e)} {percent(f)} ({percent(r)})" for e, f, r in pairs)
    tests = table(
        ("emotion", *map(text, found.hypotheses)),
        [
            (dot(e, i) + text(e), [Cell(text(said[i])) for said in found.hypotheses.values()])
            for i, e in enumerate(found.emotions)
        ],
        words=1 + len(found.hypotheses),
    )
    return card(
        "The circuit alone",
        plot(
            figures.f_curves(found), "plot-faithfulness", "Line charts: faithfulness by units left"
        )
        + (tests if found.hypotheses else ""),
        finding=f"Share of the margin that the circuit keeps alone, beside random ones: {alone}.",
        explain="<b>Reading it.</b> All units but the highest are set to their means; 1 is what "
        "the model does, 0 what is left if all are. CPR is the area under the curve, CMD the area "
        "between it and 1: a circuit that overshoots has a high CPR, and a high CMD. The table "
        "tests the circuit as a hypothesis, p by Holm over the emotions. <i>Equivalence</i>: alone "
        "it outdoes the model about as often as the model outdoes it. <i>Independence</i>: what is "
        "left without it tells nothing of what the model does. Both are rejected by a circuit that "
        "is not the whole mechanism. <i>Sufficiency</i>: it is nearer to the model than random "
        "circuits of its shape. "
        "<b>Limits.</b> Means take away all that a unit tells of the text, in all layers at once, "
        "which no model was trained for.",
    )


def _choices(found: ChoiceSummary) -> str:
    pairs = zip(found.emotions, found.carries, strict=True)
    says = ", ".join(f"{text(emotion)} {text(word)}" for emotion, word in pairs)
    cells = "".join(
        f"<div><h4>{title}</h4>"
        + plot(figures.choices(found, which), f"plot-choices-{which}", f"Heat map: {title}")
        + "</div>"
        for which, title in (("before", "As it is"), ("after", "Units set"), ("random", "Random"))
    )
    return card(
        "Which emotion, or only that there is one",
        f'<div class="many">{cells}</div>',
        finding=f"The units carry: {says}.",
        explain="<b>Reading it.</b> In texts of other tones an emotion's units (a row) are set to "
        "what they are in its own, and the tone that the model finds likeliest to go on in is "
        "counted. A diagonal is identity; a row that moves away from before, but not to its own "
        "column, is salience. <b>Limits.</b> Few texts; beside it stand random units.",
    )


def evidence(data: ReportData) -> str:
    """The verdict, curves, faithfulness and choices; or that the circuit is untested."""
    found = data.evidence
    if found is None:
        if data.circuit is None:
            return ""
        return card(
            "Evidence",
            f"<p>{text(UNTESTED)}: what ranks units is no evidence that the model uses them. "
            "<code>affectlens circuit evidence</code> tests them.</p>",
        )
    parts = [_verdict(found)]
    parts += [_curve(name, curve) for name, curve in found.curves.items()]
    if found.faithfulness is not None:
        parts.append(_left(found.faithfulness))
    if found.choices is not None:
        parts.append(_choices(found.choices))
    return "".join(parts)
