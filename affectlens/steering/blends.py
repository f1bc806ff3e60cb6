"""From one emotion to another in steps that are heard alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affectlens.core import EMOTIONS, DataError
from affectlens.steering.spec import SteeringSpec


def between(
    first: str,
    second: str,
    steps: int,
    *,
    heard: float = 0.5,
    emotions: Sequence[str] = EMOTIONS,
    **options: Any,
) -> list[SteeringSpec]:
    """Requests on the way from one emotion to another.

    At share ``t`` of the way the first is asked for with ``(1 − t)·heard`` and the second with
    ``t·heard``, in the unit ``heard``: equal steps of what is heard, not of doses.

    Args:
        first, second: Emotions.
        steps: Requests, both ends among them; at least 2.
        heard: How strongly each is heard at its end, in (0, 1].
        emotions: Names that are accepted.
        options: Other fields of `SteeringSpec`, such as ``mode``.

    Raises:
        DataError: If there are fewer than two steps, or the emotions are the same.
        UnknownNameError: If one does not exist.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise DataError(f"From one emotion to another are 2 steps or more, not {steps!r}.")
    ends = [
        SteeringSpec({name: heard}, unit="heard", emotions=emotions, **options)
        for name in (first, second)
    ]
    a, b = (next(iter(end.weights), "") for end in ends)
    if a == b:
        raise DataError(f"There is nothing between {first} and {second} heard {heard!r}.")
    return [
        ends[0].changed(emotions, weights={a: heard * (1 - t), b: heard * t})
        for t in (i / (steps - 1) for i in range(steps))
    ]
