"""Clean and corrupt texts of equal token length, for patches that go position by position.

The corrupt text is the same item's context in another tone, before the same continuations. Nothing
is padded or cut to make lengths equal: an item without such a context gives no pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.circuits.tasks.base import Text
from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from affectlens.circuits.tasks.base import Task


@dataclass(frozen=True)
class Pair:
    """One item in its own tone and in another.

    Attributes:
        item: Place of it in the task.
        emotion: Whose margin the rows make.
        other: The tone of the corrupt context.
        clean: The rows of the margin.
        corrupt: The same continuations and weights after contexts of the other tone, each as many
            tokens as the clean one.
    """

    item: int
    emotion: str
    other: str
    clean: Text
    corrupt: Text


def pairs(task: Task, emotion: str, *, per_item: int | None = 1) -> list[Pair]:
    """Pairs of an emotion's contexts with those of other tones.

    Args:
        task: Of continuations, each item with the same ones after every tone's context, as
            carry-over and recognition have.
        emotion: Of the task.
        per_item: At most so many tones for one item, in the order of the task's emotions that
            follow the emotion; None: all.

    Raises:
        DataError: If no item has a context of equal length in another tone.
    """
    start = task.emotions.index(emotion) if emotion in task.emotions else 0
    others = [*task.emotions[start + 1 :], *task.emotions[:start]]
    own = task.texts(emotion)
    there = {other: _texts(task, other) for other in others}
    found = list[Pair]()
    for item, clean in enumerate(own):
        made = [
            Pair(item, emotion, other, clean, corrupt)
            for other in others
            if clean and (corrupt := _swapped(clean, there[other][item]))
        ]
        found += made[:per_item]
    if not found:
        raise DataError(
            f"No text of the task {task.name} has as many tokens in another tone as in {emotion}, "
            "which a patch by position needs; give more texts, or patch by the mean."
        )
    return found


def _texts(task: Task, emotion: str) -> tuple[Text, ...]:
    """Of each item; empty ones where a tone has none at all."""
    try:
        return task.texts(emotion)
    except DataError:
        return ((),) * len(task)


def _swapped(clean: Text, other: Text) -> Text:
    """The rows with the other tone's contexts, or none if these are not of equal length.

    Contexts are matched in the order in which they first occur (the orders of options, say).
    """
    before = list(dict.fromkeys(context for _, (context, _) in clean))
    instead = list(dict.fromkeys(context for _, (context, _) in other))
    if [len(context) for context in before] != [len(context) for context in instead]:
        return ()
    turned = dict(zip(before, instead, strict=True))
    return tuple((weight, (turned[context], told)) for weight, (context, told) in clean)
