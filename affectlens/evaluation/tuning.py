"""Choosing strengths on tuning scenarios."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from affectlens.core import DataError


@dataclass(frozen=True)
class StrengthPoint:
    """What one strength does to the replies of one mode and emotion.

    Attributes:
        mode: ``"residual"`` or ``"circuit"``.
        emotion: The target.
        strength: In natural units.
        accuracy: Share of tuning replies in which the judge finds the target.
        perplexity_ratio: To unsteered replies.
        harmonic: Mean harmonic score, see `affectlens.evaluation.arms.ArmMetrics`.
    """

    mode: str
    emotion: str
    strength: float
    accuracy: float
    perplexity_ratio: float
    harmonic: float


def choose_strengths(
    points: Sequence[StrengthPoint], *, max_perplexity_ratio: float = 4.0
) -> dict[str, dict[str, float]]:
    """Pick, per mode and emotion, the strength with the best harmonic score.

    The score of a strength is averaged with its neighbours' (weights 1, 2, 1), because with a few
    dozen replies per point the best single point is partly luck. Strengths whose perplexity ratio
    exceeds the limit are not considered, unless all do: then the weakest is taken.

    Args:
        points: Every strength once per mode and emotion.
        max_perplexity_ratio: Largest price in fluency.

    Returns:
        mode → emotion → strength.

    Raises:
        DataError: If there are no points.
    """
    if not points:
        raise DataError("There are no tuning results to choose a strength from.")
    curves: defaultdict[tuple[str, str], list[StrengthPoint]] = defaultdict(list)
    for point in points:
        curves[point.mode, point.emotion].append(point)
    chosen: dict[str, dict[str, float]] = {}
    for (mode, emotion), curve in curves.items():
        curve.sort(key=lambda p: p.strength)
        smooth = {
            p.strength: _smoothed(curve, i)
            for i, p in enumerate(curve)
            if p.perplexity_ratio <= max_perplexity_ratio
        }
        best = max(smooth, key=lambda s: (smooth[s], -s)) if smooth else curve[0].strength
        chosen.setdefault(mode, {})[emotion] = best
    return chosen


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
    """Accuracy and (geometric mean) perplexity ratio over emotions, by mode and strength."""
    import math

    cells: defaultdict[tuple[str, float], list[StrengthPoint]] = defaultdict(list)
    for point in points:
        cells[point.mode, point.strength].append(point)
    return {
        key: (
            sum(p.accuracy for p in group) / len(group),
            math.exp(sum(math.log(p.perplexity_ratio) for p in group) / len(group)),
        )
        for key, group in cells.items()
    }
