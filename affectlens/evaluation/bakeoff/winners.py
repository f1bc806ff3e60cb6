"""The best method of an emotion, in words that say how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core.statistics import LEVEL, Difference, paired_difference
from affectlens.evaluation.reply_scores import known_mean

if TYPE_CHECKING:
    from jaxtyping import Float

    from affectlens.evaluation.reply_scores import Scores


@dataclass(frozen=True)
class Winner:
    """The best method of an emotion.

    Attributes:
        emotion: The target.
        method: The best within the limit of fluency; "" if none is within it, or heard.
        masked: Its masked accuracy there.
        ratio: Its perplexity ratio there.
        words: All of it in words, with the runner-up and the best control.
    """

    emotion: str
    method: str
    masked: float
    ratio: float
    words: str


def winner(
    emotion: str,
    scores: Mapping[str, Scores],
    ratios: Mapping[str, float],
    controls: Sequence[str],
    *,
    limit: float,
    seed: int = 0,
) -> Winner:
    """The method with the highest masked harmonic score among those within the limit.

    Args:
        emotion: The target.
        scores: Of all methods and controls, on the same events.
        ratios: Perplexity ratio of each method at this emotion; those without one are as fluent as
            can be.
        controls: Names among the scores that cannot win.
        limit: Largest perplexity ratio of a winner.
        seed: Of the bootstraps.
    """
    rows = {name: _rows(one, emotion) for name, one in scores.items()}
    means = {name: np.nan_to_num(known_mean(values)) for name, (values, _) in rows.items()}
    rivals = [name for name in scores if name not in controls]
    able = [name for name in rivals if ratios.get(name, 1.0) <= limit]
    if not able:
        least = min(rivals, key=lambda name: ratios.get(name, 1.0))
        words = (
            f"no method stays within a perplexity ratio of {limit:g}; the most fluent is {least} "
            f"({ratios[least]:.2f})"
        )
        return Winner(emotion, "", float("nan"), float("nan"), words)
    order = sorted(able, key=lambda name: -means[name])
    best, ratio = order[0], ratios.get(order[0], 1.0)
    if not means[best] > 0:
        words = f"no method within a perplexity ratio of {limit:g} is heard without feeling words"
        return Winner(emotion, "", 0.0, ratio, words)
    one = scores[best]
    masked = known_mean(one.masked[np.array(one.targets) == emotion])
    words = f"{best} (masked accuracy {masked:.2f}, perplexity ratio {ratio:.2f})"
    if len(order) > 1:
        found = _apart(rows, best, order[1], seed)
        words += f"; masked harmonic against {order[1]}, the next, {_told(found, len(rivals))}"
    if controls:
        strongest = max(controls, key=lambda name: means[name])
        found = _apart(rows, best, strongest, seed)
        words += (
            f"; masked harmonic against {strongest}, the best control, {_told(found, len(rivals))}"
        )
    return Winner(emotion, best, masked, ratio, words)


Rows = tuple["Float[np.ndarray, ' n']", list[tuple[str, str]]]


def _rows(scores: Scores, emotion: str) -> Rows:
    """Masked harmonic scores at an emotion, by event, and (event, scenario) of each."""
    at = [i for i, target in enumerate(scores.targets) if target == emotion]
    at.sort(key=lambda i: scores.events[i])
    return scores.masked_harmonic[at], [(scores.events[i], scores.groups[i]) for i in at]


def _apart(rows: Mapping[str, Rows], first: str, second: str, seed: int) -> Difference:
    (a, keys), (b, others) = rows[first], rows[second]
    assert keys == others  # all answered the same events
    judged = np.flatnonzero(~np.isnan(a - b))
    if not len(judged):
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    groups = [keys[i][1] for i in judged]
    return paired_difference(a[judged], b[judged], groups, random=seed)


def _told(found: Difference, rivals: int) -> str:
    """Of a winner that was chosen among so many by the same replies: p is times that number."""
    interval = f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
    if found.low > 0 and found.p * rivals < 1 - LEVEL:  # few scenarios cannot reach it
        return f"{interval}: ahead"
    return f"{interval}: not surely ahead"
