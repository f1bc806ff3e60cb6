"""Successive halving: many candidates on a few texts, then ever fewer of them on ever more.

Every rung may spend the same number of generated tokens, so what is left of the candidates is
measured ever better (Jamieson and Talwalkar, 2016, AISTATS; Karnin et al., 2013, ICML). Texts of
earlier rungs are kept: a rung adds events to those that a candidate has answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from affectlens.core import DataError

C = TypeVar("C")


@dataclass(frozen=True)
class Rung:
    """A round.

    Attributes:
        candidates: How many take part.
        events: How many each has answered at its end, those of earlier rungs included.
    """

    candidates: int
    events: int


def rungs(
    candidates: int, budget: int, tokens: int, *, most_events: int, keep: int = 3
) -> list[Rung]:
    """The rounds that a budget pays for.

    Args:
        candidates: How many there are.
        budget: Generated tokens of all rounds together.
        tokens: Longest reply.
        most_events: Events that there are.
        keep: Of so many candidates one is kept.

    Raises:
        DataError: If it does not pay for one reply of every candidate.
    """
    counts = [candidates]
    while counts[-1] > 1:
        counts.append(math.ceil(counts[-1] / keep))
    each = budget // len(counts)
    if each < candidates * tokens:
        least = candidates * tokens * len(counts)
        raise DataError(
            f"{candidates} candidates need a budget of {least} generated tokens or more, not "
            f"{budget}; give more, or try fewer layers, strengths, operators or positions."
        )
    plan: list[Rung] = []
    events = 0
    for count in counts:
        events = min(most_events, events + max(1, each // (count * tokens)))
        plan.append(Rung(count, events))
    return plan


@dataclass(frozen=True)
class Outcome(Generic[C]):
    """What a candidate did on the events of a rung.

    Attributes:
        candidate: Which.
        events: How many it has answered.
        score: The higher the better.
        broken: Whether its text costs more than the limit: it takes no further part.
        tokens: That it has generated so far.
    """

    candidate: C
    events: int
    score: float
    broken: bool
    tokens: int


def successive_halving(
    candidates: Sequence[C],
    plan: Sequence[Rung],
    measure: Callable[[Sequence[C], int], Sequence[Outcome[C]]],
) -> list[Outcome[C]]:
    """Measure and drop, round by round.

    Args:
        candidates: All of them.
        plan: Of `rungs`.
        measure: Measures candidates on the first so many events.

    Returns:
        All that was measured, in order; the last of a candidate is its best measurement. Ends early
        where all are broken, or where no later round adds events.
    """
    left, told = list(candidates), list[Outcome[C]]()
    for i, rung in enumerate(plan):
        found = list(measure(left, rung.events))
        told += found
        sound = sorted((one for one in found if not one.broken), key=lambda one: -one.score)
        later = plan[i + 1 :]
        if not sound or not later or later[-1].events <= rung.events:
            break  # further rounds would measure the same replies again
        left = [one.candidate for one in sound[: later[0].candidates]]
    return told


def best_of(told: Sequence[Outcome[C]]) -> Outcome[C] | None:
    """The sound candidate that lasted longest, of those the best; None if all are broken."""
    last = {one.candidate: one for one in told}
    sound = [one for one in last.values() if not one.broken]
    return max(sound, key=lambda one: (one.events, one.score), default=None)
