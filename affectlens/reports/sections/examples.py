"""The same prompts in every emotion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.plotting import style
from affectlens.reports.markup import dot, text

if TYPE_CHECKING:
    from affectlens.reports.data import Example, Heard, ReportData


def _said(heard: Heard, target: str | None) -> str:
    body = f'<div class="said" dir="auto">{text(heard.reply.text) or "<i>(empty)</i>"}</div>'
    if heard.judged is None:
        return body
    hit = target is not None and heard.judged == target
    mark = "✓ " if hit else ""
    return body + (
        f'<span class="heard{" hit" if hit else ""}">{mark}heard as {text(heard.judged)}</span>'
    )


def _example(example: Example, first: bool) -> str:
    names = list(dict.fromkeys(heard.reply.arm for heard in example.replies))
    emotions = list(dict.fromkeys(heard.reply.emotion for heard in example.replies))
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in names)
    rows = ""
    for index, emotion in enumerate(emotions):
        row = [(name, example.reply(emotion, name)) for name in names]
        cells = "".join(
            f'<td data-arm="{text(name)}">'
            + ("–" if said is None else _said(said, emotion))
            + "</td>"
            for name, said in row
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
