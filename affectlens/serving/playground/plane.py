"""The plane of valence and arousal as the page's pad has it: a mixture at every point of a grid.

The page moves from point to point of the grid, so it needs no computation of its own: what it
shows is what `affectlens.steering.affect_targets.mixture_for` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from affectlens.core.emotions import VAD
from affectlens.steering.affect_targets import mixture_for

STEPS = 20
"""From the middle to an edge."""


def plane_of(emotions: Sequence[str]) -> dict[str, Any] | None:
    """The plane of some emotions, as JSON; None if none of them has published coordinates.

    ``points`` says where each emotion lies, ``unplaced`` which have no place. ``grid`` holds, row
    by row from arousal -1 and in a row from valence -1, the strengths of the emotions of
    ``points``, in that order.
    """
    return _plane(tuple(emotions))


@lru_cache(maxsize=16)
def _plane(emotions: tuple[str, ...]) -> dict[str, Any] | None:
    placed = [one for one in emotions if one in VAD and any(VAD[one])]
    if not placed:
        return None
    ticks = [k / STEPS for k in range(-STEPS, STEPS + 1)]
    grid = [[_strengths(placed, valence, arousal) for valence in ticks] for arousal in ticks]
    return {
        "points": {one: list(VAD[one][:2]) for one in placed},
        "unplaced": [one for one in emotions if one not in placed],
        "steps": STEPS,
        "grid": grid,
    }


def _strengths(placed: Sequence[str], valence: float, arousal: float) -> list[float]:
    mixed = mixture_for(valence, arousal, emotions=placed)
    return [round(mixed.get(one, 0.0), 3) for one in placed]
