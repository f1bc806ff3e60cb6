"""What is tried of a method: strengths, wordings, or both, and which of them is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from affectlens.evaluation.tuning import StrengthPoint, beyond, choose_strengths
from affectlens.steering.methods import Method, Wording
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import MAX_STRENGTH

CLOSEST = 1.08
"""Strengths nearer to each other than this ratio are not told apart."""


@dataclass(frozen=True)
class Candidate:
    """One way to use a method.

    Attributes:
        strength: Of the vectors; None if nothing is steered.
        wording: How the model is asked; None if it is not.
    """

    strength: float | None = None
    wording: Wording | None = None

    def __str__(self) -> str:
        parts = [] if self.strength is None else [f"{self.strength:.3g}"]
        return ", ".join([*parts, *([] if self.wording is None else [self.wording.name])])


@dataclass(frozen=True)
class Look:
    """What a candidate did on tuning scenarios.

    Attributes:
        emotion: The target.
        candidate: What was tried.
        accuracy: Share of replies in which the judge finds the target.
        masked_accuracy: The same without feeling words.
        perplexity_ratio: To unsteered replies.
        score: Mean masked harmonic score, by which candidates are chosen.
        tokens: Generated for it.
    """

    emotion: str
    candidate: Candidate
    accuracy: float
    masked_accuracy: float
    perplexity_ratio: float
    score: float
    tokens: int


Measure = Callable[[Sequence[tuple[str, Candidate]]], list[Look]]


def search(
    method: Method, emotions: Sequence[str], measure: Measure, *, looks: int, limit: float
) -> dict[str, list[Look]]:
    """Try candidates of a method, at most so many per emotion.

    First the method's own strengths (or wordings); then, one look at a time, other wordings at the
    best strength, and strengths beyond the grid where the best lies at its end, or between the best
    and the better of its neighbours.

    Args:
        method: Which.
        emotions: Each is searched for itself, all in the same batches.
        measure: Makes a look of each (emotion, candidate).
        looks: At most so many.
        limit: Perplexity ratio that a chosen candidate may have.
    """
    first = _first(method)[:looks]
    found: dict[str, list[Look]] = {emotion: [] for emotion in emotions}
    asked = [(emotion, candidate) for emotion in emotions for candidate in first]
    while asked:
        for look in measure(asked):
            found[look.emotion].append(look)
        asked = [
            (emotion, candidate)
            for emotion, seen in found.items()
            if len(seen) < looks and (candidate := following(method, seen, limit)) is not None
        ]
    return found


def _first(method: Method) -> list[Candidate]:
    if not method.strengths:
        return [Candidate(None, wording) for wording in method.wordings]
    wording = method.wordings[0] if method.wordings else None
    return [Candidate(strength, wording) for strength in method.strengths]


def chosen(looks: Sequence[Look], limit: float) -> Look:
    """The best of the looks at one emotion.

    Of each wording the strength is chosen by `choose_strengths`, whose score is averaged with the
    neighbours'; of the wordings the one that scores best within the limit; if none is within it,
    the cheapest.
    """
    strength_of = {
        name: by_emotion[looks[0].emotion]
        for name, by_emotion in choose_strengths(_points(looks), max_perplexity_ratio=limit).items()
    }
    best = [look for look in looks if _strength(look) == strength_of[_wording(look)]]
    affordable = [look for look in best if look.perplexity_ratio <= limit]
    if affordable:
        return max(affordable, key=lambda look: look.score)
    return min(best, key=lambda look: look.perplexity_ratio)


def following(method: Method, looks: Sequence[Look], limit: float) -> Candidate | None:
    """What to try next for an emotion; None if there is nothing that could tell more."""
    if not method.strengths:
        return None
    best = chosen(looks, limit)
    untried = [w for w in method.wordings if all(look.candidate.wording != w for look in looks)]
    if untried:
        return Candidate(best.candidate.strength, untried[0])
    curve = sorted((x for x in looks if _wording(x) == _wording(best)), key=_strength)
    grid = [_strength(look) for look in curve]
    place = grid.index(_strength(best))
    further = _beyond(curve, best, limit, _largest(method)) if len(curve) > 1 else None
    if further is None:
        near = [curve[i] for i in (place - 1, place + 1) if 0 <= i < len(curve)]
        if not near:
            return None
        better = max(near, key=lambda look: look.score)
        further = math.sqrt(_strength(best) * _strength(better))
    ratios = [max(further / s, s / further) for s in grid]
    return Candidate(further, best.candidate.wording) if min(ratios) >= CLOSEST else None


def _beyond(curve: Sequence[Look], best: Look, limit: float, largest: float) -> float | None:
    picked = {_wording(best): {best.emotion: _strength(best)}}
    found = beyond(_points(curve), picked, largest=largest, max_perplexity_ratio=limit)
    return found.get((_wording(best), best.emotion))


def _largest(method: Method) -> float:
    return OPERATORS[method.operator].share or float(MAX_STRENGTH["natural"])


def _points(looks: Sequence[Look]) -> list[StrengthPoint]:
    """As points of a search for strengths, whose arms are the wordings."""
    return [
        StrengthPoint(
            _wording(look),
            look.emotion,
            _strength(look),
            look.accuracy,
            look.perplexity_ratio,
            look.score,
        )
        for look in looks
    ]


def _strength(look: Look) -> float:
    return look.candidate.strength or 0.0


def _wording(look: Look) -> str:
    return look.candidate.wording.name if look.candidate.wording else ""


def tokens_of(looks: Mapping[str, Sequence[Look]]) -> int:
    """All that were generated to tune a method."""
    return sum(look.tokens for seen in looks.values() for look in seen)
