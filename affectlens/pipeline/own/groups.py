"""Groups that show every label: those a corpus has, or, where it has none, made by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from affectlens.core import NEUTRAL, group_name
from affectlens.core.groups import Groups

if TYPE_CHECKING:
    from affectlens.core import GroupKey
    from affectlens.datasets import Record

PREFIX = "tones:"
"""Of the groups, which tells them from the model's own replies."""

INSTRUCTION = "Write one short message."
"""What a text that answers nothing is taken to answer, the same for all."""

Cells = Mapping["GroupKey", Mapping[str, Sequence["Record"]]]


@dataclass(frozen=True)
class Grouped:
    """Texts as groups of replies with every label.

    Attributes:
        records: Each group has every emotion once, and one prompt.
        real: Whether the groups are the corpus's own, so that content cancels.
        lacking: Emotion → groups of the corpus without it; empty if it has no groups to speak of.
        groups: How many groups the corpus has.
    """

    records: tuple[Record, ...]
    real: bool
    lacking: Mapping[str, int]
    groups: int


def grouped(records: Sequence[Record], emotions: Sequence[str]) -> Grouped:
    """Complete groups of these records.

    The corpus's own groups are used if at least half of the records lie in complete ones with a
    common prompt. Else the first text of each emotion makes a group, then the second, and so on:
    the group mean is then no content, and directions are differences of class means.

    Args:
        records: Labelled, of one role.
        emotions: Every group gets them all.
    """
    found = Groups.find(
        [r.emotion for r in records],
        [r.group_key for r in records],
        emotions,
        [i for i, r in enumerate(records) if r.emotion in emotions or r.emotion == NEUTRAL],
    )
    cells: Cells = {
        key: {label: [records[i] for i in rows] for label, rows in cell.items()}
        for key, cell in found.cells.items()
    }
    shared = any(sum(map(len, cell.values())) > 1 for cell in cells.values())
    lacking = {e: sum(e not in cell for cell in cells.values()) for e in emotions} if shared else {}
    real = [
        record
        for key, cell in cells.items()
        if all(e in cell for e in emotions)
        for record in _of_group(group_name(key), cell, emotions)
    ]
    told = sum(record.emotion in emotions for record in records)
    if 2 * len(real) >= told and len(real) >= 2 * len(emotions):
        return Grouped(tuple(real), True, lacking, len(cells))
    return Grouped(tuple(_made(records, emotions)), False, lacking, len(cells))


def as_reply(record: Record) -> Record:
    """The record as it is if it is a reply to something, else as a reply to the instruction."""
    from affectlens.datasets import Message

    if record.reply is not None and record.messages[:-1]:
        return record
    asked = Message("user", INSTRUCTION)
    return replace(record, messages=(asked, Message("assistant", record.text)))


def _of_group(
    name: str, cell: Mapping[str, Sequence[Record]], emotions: Sequence[str]
) -> list[Record]:
    """As many groups as its rarest emotion has texts; none if they answer different prompts."""
    from affectlens.datasets import Message

    prompts = {as_reply(r).messages[:-1] for e in emotions for r in cell[e]}
    if len(prompts) > 1:
        return []
    (prompt,) = prompts
    neutral = cell.get(NEUTRAL, ())
    if prompt == (Message("user", INSTRUCTION),) and neutral:
        prompt = (Message("user", neutral[0].text),)  # the same content without a tone
    count = min(len(cell[e]) for e in emotions)
    return [
        _placed(cell[e][i], f"{name}#{i + 1}" if count > 1 else name, prompt)
        for i in range(count)
        for e in emotions
    ]


def _made(records: Sequence[Record], emotions: Sequence[str]) -> list[Record]:
    from affectlens.datasets import Message

    by_label = {e: [r for r in records if r.emotion == e] for e in emotions}
    prompt = (Message("user", INSTRUCTION),)
    count = min(map(len, by_label.values()))
    return [
        replace(_placed(by_label[e][i], f"made_{i + 1}", prompt), valence=None)
        for i in range(count)
        for e in emotions
    ]


def _placed(record: Record, group: str, prompt: tuple[object, ...]) -> Record:
    from affectlens.datasets import Message

    return replace(
        record,
        id=f"{PREFIX}{record.id}",
        group=f"{PREFIX}{group}",
        messages=(*prompt, Message("assistant", record.text)),  # type: ignore[arg-type]
    )
