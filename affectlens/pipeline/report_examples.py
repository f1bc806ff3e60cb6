"""Examples for the report: a few events, answered in every emotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from affectlens.reports import Example, Heard

if TYPE_CHECKING:
    from affectlens.evaluation import Reply
    from affectlens.evaluation.judges import Judge


def examples(
    replies: Mapping[str, Sequence[Reply]], judge: Judge, arms: Sequence[str], n_events: int
) -> list[Example]:
    """All emotions and arms side by side, for a few events spread over the test set.

    Args:
        replies: Of every arm; ``"unsteered"`` must be there.
        judge: Names the emotion it hears in each.
        arms: Those shown beside it, as far as they are there.
        n_events: At most so many.
    """
    events = list(dict.fromkeys(r.event for r in replies["unsteered"]))
    # A step that is no multiple of three, so that the valences differ.
    step = max(1, len(events) // n_events)
    step += step % 3 == 0 and step > 1
    shown: list[Example] = []
    for event in events[::step][:n_events]:
        plain = next(r for r in replies["unsteered"] if r.event == event)
        steered = [r for arm in arms for r in replies.get(arm, ()) if r.event == event]
        verdicts = judge([plain.text, *(r.text for r in steered)]).chosen
        heard = [Heard(r, v) for r, v in zip(steered, verdicts[1:], strict=True)]
        shown.append(Example(plain.prompt, heard, Heard(plain, verdicts[0])))
    return shown
