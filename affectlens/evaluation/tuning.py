"""Choosing strengths on tuning scenarios."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from affectlens.core import DataError


@dataclass(frozen=True)
class StrengthPoint:
    """What one strength does to the replies of one arm and emotion.

    Attributes:
        arm: One of `affectlens.evaluation.ARMS`.
        emotion: The target.
        strength: In natural units.
        accuracy: Share of tuning replies in which the judge finds the target.
        perplexity_ratio: To unsteered replies.
        harmonic: Mean harmonic score, see `affectlens.evaluation.arm_metrics.ArmMetrics`.
        masked_harmonic: The same, heard without feeling words; None if it was not measured.
        unsteered: As ``accuracy``, of the unsteered replies; None if it was not measured.
    """

    arm: str
    emotion: str
    strength: float
    accuracy: float
    perplexity_ratio: float
    harmonic: float
    masked_harmonic: float | None = None
    unsteered: float | None = None


MAX_PERPLEXITY_RATIO = 4.0
"""Largest price in fluency that a chosen strength may have, the same for every arm."""


def choose_strengths(
    points: Sequence[StrengthPoint], *, max_perplexity_ratio: float = MAX_PERPLEXITY_RATIO
) -> dict[str, dict[str, float]]:
    """Pick, per arm and emotion, the strength with the best harmonic score.

    The score of a strength is averaged with its neighbours' (weights 1, 2, 1), because with a few
    dozen replies per point the best single point is partly luck. Strengths whose perplexity ratio
    exceeds the limit are not considered, unless all do: then the weakest is taken.

    Args:
        points: Every strength once per arm and emotion.
        max_perplexity_ratio: Largest price in fluency.

    Returns:
        arm → emotion → strength.

    Raises:
        DataError: If there are no points, or none of an arm and emotion has a verdict.
    """
    if not points:
        raise DataError("There are no tuning results to choose a strength from.")
    chosen: dict[str, dict[str, float]] = {}
    for (arm, emotion), tried in _curves(points).items():
        curve = [p for p in tried if not math.isnan(p.harmonic)]  # the others nobody judged
        if not curve:
            raise DataError(
                f"The judge gave no verdict on any reply of {arm} with {emotion}, so there is no "
                "strength to choose; see whether it answers, and run again."
            )
        smooth = {
            p.strength: _smoothed(curve, i)
            for i, p in enumerate(curve)
            if p.perplexity_ratio <= max_perplexity_ratio
        }
        best = max(smooth, key=lambda s: (smooth[s], -s)) if smooth else curve[0].strength
        chosen.setdefault(arm, {})[emotion] = best
    return chosen


def beyond(
    points: Sequence[StrengthPoint],
    chosen: Mapping[str, Mapping[str, float]],
    *,
    largest: float = math.inf,
    max_perplexity_ratio: float = MAX_PERPLEXITY_RATIO,
) -> dict[tuple[str, str], float]:
    """What to try next where the chosen strength is the weakest or strongest that was tried.

    A choice at the end of its grid says that the grid was too narrow. The next strength is as much
    further out as the last step was (a ratio). Where the emotion is never heard, all strengths
    score alike and the weakest is chosen; then a stronger one is tried while fluency allows it, as
    a weaker one is no use.

    Args:
        points: What has been measured.
        chosen: Of `choose_strengths`.
        largest: Nothing stronger may be asked for; it is the last that is tried.
        max_perplexity_ratio: Largest price in fluency that may be chosen.

    Returns:
        (arm, emotion) → strength, for those arms and emotions only.

    Raises:
        DataError: If a curve has but one strength.
    """
    further: dict[tuple[str, str], float] = {}
    for (arm, emotion), curve in _curves(points).items():
        if len(curve) < 2:
            raise DataError(f"Give at least two strengths to try for {arm}.")
        grid = [p.strength for p in curve]
        silent = not any(p.accuracy > 0 for p in curve)
        dear = [p.perplexity_ratio > max_perplexity_ratio for p in curve]
        if chosen[arm][emotion] == grid[-1] or (silent and not dear[-1]):
            if grid[-1] < largest:
                further[arm, emotion] = min(grid[-1] ** 2 / grid[-2], largest)
        elif chosen[arm][emotion] == grid[0] and (dear[0] or not silent):
            further[arm, emotion] = grid[0] ** 2 / grid[1]
    return further


def _curves(points: Sequence[StrengthPoint]) -> dict[tuple[str, str], list[StrengthPoint]]:
    """Points by arm and emotion, the weakest first."""
    curves: defaultdict[tuple[str, str], list[StrengthPoint]] = defaultdict(list)
    for point in points:
        curves[point.arm, point.emotion].append(point)
    return {key: sorted(curve, key=lambda p: p.strength) for key, curve in curves.items()}


def _smoothed(curve: Sequence[StrengthPoint], i: int) -> float:
    near = [
        (curve[j].harmonic, 2.0 if j == i else 1.0)
        for j in (i - 1, i, i + 1)
        if 0 <= j < len(curve)
    ]
    return sum(h * w for h, w in near) / sum(w for _, w in near)


def pooled_by_strength(
    points: Sequence[StrengthPoint],
) -> Mapping[tuple[str, float], tuple[float, float]]:
    """Accuracy and (geometric mean) perplexity ratio over emotions, by arm and strength.

    Only strengths that were tried for every emotion of the arm: others would not be comparable.
    """
    emotions: defaultdict[str, set[str]] = defaultdict(set)
    cells: defaultdict[tuple[str, float], list[StrengthPoint]] = defaultdict(list)
    for point in points:
        emotions[point.arm].add(point.emotion)
        cells[point.arm, point.strength].append(point)
    return {
        (arm, strength): (
            sum(p.accuracy for p in group) / len(group),
            math.exp(sum(math.log(p.perplexity_ratio) for p in group) / len(group)),
        )
        for (arm, strength), group in cells.items()
        if len(group) == len(emotions[arm])
    }


def best_arm(
    points: Sequence[StrengthPoint], chosen: Mapping[str, Mapping[str, float]], arms: Sequence[str]
) -> str | None:
    """The arm that is heard best without feeling words, at its chosen strengths.

    Args:
        points: What has been measured.
        chosen: Of `choose_strengths`.
        arms: To choose from.

    Returns:
        The arm with the highest mean of ``masked_harmonic`` over emotions, the first of equals;
        None if that was not measured of all of them.
    """
    means: dict[str, float] = {}
    for arm in arms:
        at = [p for p in points if p.arm == arm and p.strength == chosen[arm].get(p.emotion)]
        scores = [p.masked_harmonic for p in at]
        known = [s for s in scores if s is not None and not math.isnan(s)]
        if not known or len(known) < len(chosen[arm]):
            return None
        means[arm] = sum(known) / len(known)
    return max(means, key=lambda arm: means[arm], default=None)
