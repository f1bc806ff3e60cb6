"""The sections about steered text: tuning, arms, judges, examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens.reports import figures, style
from affectlens.reports.markup import (
    Cell,
    card,
    dot,
    finite,
    number,
    percent,
    plot,
    table,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.reports.data import Arm, Evaluation, Example, Judge, Reply, ReportData


def tuning(data: ReportData) -> str:
    """Strength against accuracy and fluency, one card per mode."""
    if data.tuning is None or not data.tuning.points:
        return ""
    modes = list(dict.fromkeys(point.mode for point in data.tuning.points))
    cards: list[str] = []
    for index, mode in enumerate(modes):
        chosen = data.tuning.chosen.get(mode, {})
        figure = figures.strength_curves([p for p in data.tuning.points if p.mode == mode], chosen)
        picked = ", ".join(f"{text(e or 'all')} {number(s)}" for e, s in chosen.items())
        cards.append(
            card(
                f"Strength: {text(mode)}",
                plot(
                    figure,
                    f"plot-strength-{index}",
                    f"Line charts: accuracy and perplexity ratio over strength, {mode}",
                ),
                finding=f"Chosen: {picked}." if picked else "",
            )
        )
    note = (
        '<p class="muted">More strength is heard more often, until the text falls apart. The '
        "ringed strength was chosen on these tuning scenarios alone; the results below come from "
        "test scenarios that played no part in it. Perplexity is measured by the unsteered model: "
        "a ratio of 2 means the text surprises it twice as much as its own.</p>"
    )
    body = "".join(cards)
    return note + (f'<div class="pair">{body}</div>' if len(cards) > 1 else body)


_COLUMNS: Sequence[tuple[str, str, str]] = (
    # attribute, head, how shown and which way is better
    ("perplexity_ratio", "perplexity ratio", "number"),
    ("distinct_2", "distinct‑2", "number"),
    ("repetition", "repetition", "percent"),
    ("capitals", "capitals", "percent"),
    ("topic", "topic kept", "number"),
    ("harmonic", "harmonic mean", "number"),
)


def _arms_table(arms: Sequence[Arm]) -> str:
    shown = [c for c in _COLUMNS if any(finite(getattr(arm, c[0])) for arm in arms)]
    judges = list(dict.fromkeys(name for arm in arms for name in arm.other_judges))
    top = {
        name: max((v for arm in arms if finite(v := getattr(arm, name))), default=None)
        for name in ("accuracy", "harmonic")
    }
    rows: list[tuple[str, list[Cell]]] = []
    for arm in arms:
        interval = f"<small>{percent(arm.low)} to {percent(arm.high)}</small>"
        cells = [
            Cell(
                f"{percent(arm.accuracy, 1)} {interval}",
                arm.accuracy,
                arm.accuracy == top["accuracy"],
            )
        ]
        cells += [
            Cell(percent(arm.other_judges.get(name), 1), arm.other_judges.get(name))
            for name in judges
        ]
        for attribute, _, kind in shown:
            value = getattr(arm, attribute)
            rendered = percent(value, 1) if kind == "percent" else number(value)
            best = attribute == "harmonic" and finite(value) and value == top["harmonic"]
            cells.append(Cell(rendered, value, best))
        if any(a.n is not None for a in arms):
            cells.append(Cell("–" if arm.n is None else str(arm.n), arm.n))
        rows.append((text(arm.name), cells))
    heads = ["arm", "accuracy, 95 % interval", *(f"accuracy, {text(name)}" for name in judges)]
    heads += [head for _, head, _ in shown]
    if any(arm.n is not None for arm in arms):
        heads.append("texts")
    return table(heads, rows, sortable=True)


def arms(data: ReportData) -> str:
    """Arms compared: bars, table, per emotion."""
    evaluation = data.evaluation
    if evaluation is None or not evaluation.arms:
        return ""
    found = evaluation.arms
    best = max(found, key=lambda arm: arm.accuracy if finite(arm.accuracy) else -1.0)
    finding = f"Heard most often: <b>{text(best.name)}</b>, {percent(best.accuracy, 1)}"
    prompted = next((a for a in found if a.name == "prompted" and a is not best), None)
    if prompted is not None:
        finding += f", against {percent(prompted.accuracy, 1)} when the model is asked in words"
    chance = "" if evaluation.chance is None else " The dashed line is a judge that guesses."
    out = card(
        "Emotion heard, and what it costs",
        plot(
            figures.arms_bars(found, evaluation.chance),
            "plot-arms",
            "Bars: accuracy and perplexity ratio of every arm",
        ),
        finding=finding + ".",
        explain="<b>Reading it.</b> Left: the share of replies in which a judge that does not "
        f"know the target hears it, with its 95 % interval over scenarios.{chance} Right: how much "
        "more the text surprises the unsteered model. <b>Limits.</b> Accuracy without fluency is "
        "easy: read both. A random direction of equal norm shows what any push would do.",
    )
    out += card(
        "All measures",
        _arms_table(found),
        explain="<b>Distinct‑2</b>: share of word pairs that are not repeats, higher is more "
        "varied. <b>Repetition</b> and <b>capitals</b>: high values are the usual ways steered "
        "text goes wrong. <b>Topic kept</b>: similarity of the reply to its prompt. "
        "<b>Harmonic mean</b> of the emotion, topic and fluency scores: one bad score pulls it "
        "down. The best accuracy and the best harmonic mean are in bold.",
    )
    if any(arm.per_emotion for arm in found):
        shown = [arm for arm in found if arm.per_emotion]
        matrix = [
            [
                float("nan") if (v := arm.per_emotion.get(label)) is None else v
                for label in evaluation.labels
            ]
            for arm in shown
        ]
        out += card(
            "Emotion by emotion",
            plot(
                figures.per_emotion_heatmap([a.name for a in shown], evaluation.labels, matrix),
                "plot-per-emotion",
                "Heat map: accuracy by arm and target emotion",
            ),
            explain="<b>Reading it.</b> The same accuracy for each target emotion. <b>Limits.</b> "
            "Few texts per cell: differences of a few points are noise. A judge that favours one "
            "emotion lifts that whole column, the unsteered row included.",
        )
    return out


def _judge_cards(evaluation: Evaluation) -> list[str]:
    def confusion_card(index: int, judge: Judge) -> str:
        matrix = np.asarray(judge.confusion, dtype=float)
        right = float(np.trace(matrix) / matrix.sum()) if matrix.sum() else float("nan")
        # Rows may be shares already; then the mean over rows is what trace/sum gives.
        return card(
            f"Judge: {text(judge.name)}",
            plot(
                figures.confusion(judge.labels, matrix),
                f"plot-confusion-{index}",
                f"Heat map: confusion matrix of {judge.name}",
            ),
            finding=f"Right on <b>{percent(right, 1)}</b> of texts whose tone is known.",
        )

    return [
        confusion_card(index, judge)
        for index, judge in enumerate(evaluation.judges)
        if judge.confusion is not None
    ]


def judges(data: ReportData) -> str:
    """How good the rulers are."""
    evaluation = data.evaluation
    if evaluation is None or not evaluation.judges:
        return ""
    cards = _judge_cards(evaluation)
    out = (
        '<p class="muted">Judges are fitted on scenarios that gave no direction. Where a judge '
        "confuses two emotions, no steering method can look better than the ruler.</p>"
    )
    body = "".join(cards)
    out += f'<div class="pair">{body}</div>' if len(cards) > 1 else body
    rows = [
        (
            text(judge.name),
            [
                Cell(text(cross.fitted)),
                Cell(text(cross.asked)),
                Cell(percent(cross.accuracy, 1), cross.accuracy),
                Cell("–" if cross.n is None else str(cross.n), cross.n),
            ],
        )
        for judge in evaluation.judges
        for cross in judge.cross_corpus
    ]
    if rows:
        out += card(
            "Judges across corpora",
            table(
                ["judge", "fitted on", "asked about", "accuracy", "texts"],
                rows,
                sortable=True,
                words=3,
            ),
            explain="<b>Reading it.</b> A judge that only works on the corpus it was fitted on "
            "hears that corpus's style, not the emotion.",
        )
    return out


def _said(reply: Reply, target: str | None) -> str:
    body = f'<div class="said" dir="auto">{text(reply.text) or "<i>(empty)</i>"}</div>'
    if reply.judged is None:
        return body
    hit = target is not None and reply.judged == target
    mark = "✓ " if hit else ""
    return body + (
        f'<span class="heard{" hit" if hit else ""}">{mark}heard as {text(reply.judged)}</span>'
    )


def _example(example: Example, first: bool) -> str:
    names = list(dict.fromkeys(arm for row in example.replies.values() for arm in row))
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    rows = ""
    for index, (emotion, by_arm) in enumerate(example.replies.items()):
        cells = "".join(
            f'<td data-arm="{text(name)}">'
            + (_said(by_arm[name], emotion) if name in by_arm else "–")
            + "</td>"
            for name in names
        )
        rows += (
            f'<tr style="--c:{style.css_colour(emotion, index)}"><th scope="row">'
            f"{dot(emotion, index)} {text(emotion)}</th>{cells}</tr>"
        )
    plain = ""
    if example.unsteered is not None:
        plain = f'<div class="plainreply"><b>unsteered</b>{_said(example.unsteered, None)}</div>'
    grid = (
        f'<table class="replies"><thead><tr><th scope="col">emotion</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if names
        else ""
    )
    return (
        f'<details class="card example"{" open" if first else ""}>'
        f'<summary dir="auto">{text(example.prompt)}</summary>{plain}{grid}</details>'
    )


def examples(data: ReportData) -> str:
    """The same prompts in every emotion."""
    if not data.examples:
        return ""
    note = (
        '<p class="muted">The same prompt, byte for byte, and the same decoding everywhere; only '
        "the arm differs. The tag below a reply is what the blind judge heard. Examples "
        "show what the numbers sound like; they prove nothing by themselves.</p>"
    )
    return note + "".join(_example(e, i == 0) for i, e in enumerate(data.examples))
