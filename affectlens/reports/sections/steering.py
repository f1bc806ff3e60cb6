"""The sections about steered text: tuning, arms, judges, examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectlens import plotting as figures
from affectlens.plotting import style
from affectlens.reports.data import Share
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
from affectlens.reports.sections.comparisons import comparison_card

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affectlens.reports.data import Arm, Evaluation, Example, Judge, Reply, ReportData


def tuning(data: ReportData) -> str:
    """Strength against accuracy and fluency, one card per arm that has strengths of its own."""
    if data.tuning is None or not data.tuning.points:
        return ""
    names = list(dict.fromkeys(point.arm for point in data.tuning.points))
    titles = {} if data.evaluation is None else {a.name: a.label for a in data.evaluation.arms}
    cards: list[str] = []
    for index, name in enumerate(names):
        chosen = data.tuning.chosen.get(name, {})
        figure = figures.strength_curves([p for p in data.tuning.points if p.arm == name], chosen)
        title = text(titles.get(name, name))
        picked = ", ".join(f"{text(e or 'all')} {number(s)}" for e, s in chosen.items())
        cards.append(
            card(
                f"Strength: {title}",
                plot(
                    figure,
                    f"plot-strength-{index}",
                    f"Line charts: accuracy and perplexity ratio over strength, {title}",
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
    ("masked_harmonic", "harmonic mean, masked", "number"),
)
_SHARES: Sequence[tuple[str, str]] = (
    ("masked", "feeling words masked"),
    ("later", "without first sentence"),
    ("copied", "copied openers"),
)


def _arms_table(arms: Sequence[Arm]) -> str:
    shown = [c for c in _COLUMNS if any(finite(getattr(arm, c[0])) for arm in arms)]
    judges = list(dict.fromkeys(name for arm in arms for name in arm.other_judges))
    top = {
        name: max((v for arm in arms if finite(v := getattr(arm, name))), default=None)
        for name in ("accuracy", "harmonic")
    }
    shares = [c for c in _SHARES if any(getattr(arm, c[0]) is not None for arm in arms)]
    rows: list[tuple[str, list[Cell]]] = []
    for arm in arms:
        cells = [
            _share(Share(arm.accuracy, arm.low, arm.high), arm.accuracy == top["accuracy"]),
            *(_share(getattr(arm, attribute)) for attribute, _ in shares),
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
        rows.append((text(arm.label), cells))
    heads = ["arm", "accuracy, 95 % interval", *(head for _, head in shares)]
    heads += [f"accuracy, {text(name)}" for name in judges]
    heads += [head for _, head, _ in shown]
    if any(arm.n is not None for arm in arms):
        heads.append("texts")
    return table(heads, rows, sortable=True)


def _share(share: Share | None, best: bool = False) -> Cell:
    """A share with its interval, where there is one."""
    if share is None:
        return Cell("–")
    interval = ""
    if finite(share.low) and finite(share.high):
        interval = f" <small>{percent(share.low)} to {percent(share.high)}</small>"
    return Cell(f"{percent(share.value, 1)}{interval}", share.value, best)


def arms(data: ReportData) -> str:
    """Arms compared: bars, table, pairs, per emotion."""
    evaluation = data.evaluation
    if evaluation is None or not evaluation.arms:
        return ""
    found = evaluation.arms
    best = max(found, key=lambda arm: arm.accuracy if finite(arm.accuracy) else -1.0)
    finding = f"Heard most often: <b>{text(best.label)}</b>, {percent(best.accuracy, 1)}"
    if best.masked is not None:
        finding += f" ({percent(best.masked.value, 1)} with feeling words masked)"
    prompted = next((a for a in found if a.name == "prompted" and a is not best), None)
    if prompted is not None:
        finding += f", against {percent(prompted.accuracy, 1)} when the model is asked in words"
    line = ""
    if evaluation.false_hits is not None:
        line = (
            f" The dashed line, {percent(evaluation.false_hits, 1)}, is how often the judge hears "
            "a target in text that nobody steered: its false hits, measured, not a guess at 1 in "
            f"{len(evaluation.labels)}."
        )
    diamond = " Diamonds: the same with feeling words masked." if best.masked is not None else ""
    out = card(
        "Emotion heard, and what it costs",
        plot(
            figures.arms_bars(found, evaluation.false_hits),
            "plot-arms",
            "Bars: accuracy and perplexity ratio of every arm",
        ),
        finding=finding + ".",
        explain="<b>Reading it.</b> Left: the share of replies in which a judge that does not "
        f"know the target hears it, with its 95 % interval over scenarios.{diamond}{line} Right: "
        "how much more the text surprises the unsteered model. <b>Limits.</b> Accuracy without "
        "fluency is easy: read both. Controls leave one thing out each: the refining, the choice "
        "of units, the direction.",
    )
    naming = ""
    if any(arm.masked is not None for arm in found):
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
    out += comparison_card(evaluation)
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
                figures.per_emotion_heatmap([a.label for a in shown], evaluation.labels, matrix),
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
