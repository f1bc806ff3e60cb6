"""From a place in the space of valence, arousal and dominance to a mixture of emotions.

The mixture ``w`` is the non-negative least-squares answer to ``Σ_e w_e a_e = t``, where ``a_e`` are
the published coordinates of the emotions (`affectlens.core.emotions.coordinates`) and ``t`` is the
target. Six emotions in two or three dimensions leave many answers; emotions near the target are
preferred by a small penalty on ``w_e |a_e − t|``, as in locality-constrained coding (Wang et al.,
2010, CVPR). So the place of an emotion is that emotion alone, and the origin is nothing at all.
Strengths add up to at most 1: beyond the emotions themselves a target keeps its direction.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core import EMOTIONS, DataError
from affectlens.core.emotions import DIMENSIONS, VAD

NEARNESS = 0.05
"""Weight of the penalty. It only settles which of nearly equal answers is taken."""
LEAST = 0.01
"""Strengths below are left out: nobody would hear them."""
AGREES = 0.7
"""Cosine between a target and its mixture below which people are told where the mixture lies."""
logger = logging.getLogger(__name__)
MOST_SWEEPS, SETTLED = 20_000, 1e-9


def mixture_for(
    valence: float,
    arousal: float,
    dominance: float | None = None,
    emotions: Sequence[str] = EMOTIONS,
    coordinates: Mapping[str, tuple[float, float, float]] = VAD,
) -> dict[str, float]:
    """The strengths of emotions that together lie at a place.

    Args:
        valence, arousal, dominance: In [-1, 1]; without dominance it is left open.
        emotions: Those that may be mixed; the ones without coordinates are passed over.
        coordinates: Label to valence, arousal and dominance in [-1, 1].

    Returns:
        Emotion → strength above 0, strongest first; they add up to at most 1. Empty at the origin,
        and where no mixture comes nearer than nothing does.

    Raises:
        DataError: If a number is not one in [-1, 1], or no emotion has coordinates.
    """
    target = [
        _checked(name, value)
        for name, value in zip(DIMENSIONS, (valence, arousal, dominance), strict=True)
        if value is not None or name != "dominance"
    ]
    known = [e for e in emotions if e in coordinates and any(coordinates[e])]
    if not known:
        raise DataError(
            f"None of {', '.join(emotions)} has published coordinates of valence and arousal; "
            "give strengths of emotions instead."
        )
    t = np.array(target)
    places = np.array([coordinates[e][: len(t)] for e in known])
    far = np.linalg.norm(places - t, axis=1)
    rows = np.vstack([places.T, math.sqrt(NEARNESS) * np.diag(far)])
    found = non_negative(rows, np.concatenate([t, np.zeros(len(known))]))
    strengths = found / max(1.0, found.sum())
    loudest = sorted(zip(known, strengths.tolist(), strict=True), key=lambda pair: -pair[1])
    return {e: round(s, 4) for e, s in loudest if s >= LEAST}


def non_negative(
    rows: Float[np.ndarray, "row column"], wanted: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " column"]:
    """The ``w >= 0`` with the least ``|rows w - wanted|``, column after column until none moves.

    Servers read places and have no scipy, whose ``nnls`` gives the same.

    Args:
        rows: Columns must not vanish.
        wanted: What they should add up to.
    """
    products, slopes = rows.T @ rows, rows.T @ wanted
    found = np.zeros(rows.shape[1])
    for _ in range(MOST_SWEEPS):
        before = found.copy()
        for i in range(len(found)):
            step = (slopes[i] - products[i] @ found) / products[i, i]
            found[i] = max(0.0, found[i] + step)
        if np.abs(found - before).max() < SETTLED:
            break
    return found


def place_of(
    mixture: Mapping[str, float],
    coordinates: Mapping[str, tuple[float, float, float]] = VAD,
) -> tuple[float, float, float]:
    """Where a mixture lies: ``Σ_e w_e a_e``; emotions without coordinates add nothing."""
    parts = [
        [strength * x for x in coordinates[e]]
        for e, strength in mixture.items()
        if e in coordinates
    ]
    v, a, d = (math.fsum(column) for column in zip(*parts, strict=True)) if parts else (0.0,) * 3
    return v, a, d


def from_dimensions(weights: Mapping[Any, Any], emotions: Sequence[str]) -> Mapping[Any, Any]:
    """Strengths with valence, arousal and dominance turned into the mixture that they ask for.

    Args:
        weights: Of a request, as it was read. A label of one's own that is called like a dimension
            is that label.
        emotions: Names that the request may use.

    Raises:
        DataError: If a place is asked for with emotions beside it, without valence and arousal, or
            where no mixture comes nearer to it than no emotion does.
    """
    asked = [name for name in weights if name in DIMENSIONS and name not in emotions]
    if not asked:
        return weights
    others = [name for name in weights if name not in asked]
    if others:
        raise DataError(
            f"{asked[0]} is a place and {others[0]} an emotion; ask for one or the other."
        )
    missing = [name for name in DIMENSIONS[:2] if name not in asked]
    if missing:
        raise DataError(
            f"{missing[0]} is missing; a place needs valence and arousal, for example "
            "valence=-0.6,arousal=0.7."
        )
    mixture = mixture_for(**dict(weights), emotions=emotions)
    _near_enough(weights, mixture, emotions)
    return mixture


def _near_enough(asked: Mapping[str, float], mixture: Mapping[str, float], emotions: Any) -> None:
    """Refuse a place that no mixture comes nearer to, and warn of a mixture that points elsewhere.

    Raises:
        DataError: If nothing would be steered though something is asked for.
    """
    wanted = [asked[name] for name in DIMENSIONS if name in asked]
    size = math.hypot(*wanted)
    if size < LEAST:
        return
    said = ", ".join(f"{name} {value:g}" for name, value in asked.items())
    if not mixture:
        raise DataError(
            f"No mixture of {', '.join(emotions)} comes nearer to {said} than no emotion does; ask "
            "for a place on the side of one of them, or give strengths of emotions."
        )
    there = place_of(mixture)
    found = [there[i] for i, name in enumerate(DIMENSIONS) if name in asked]
    along = math.fsum(a * b for a, b in zip(wanted, found, strict=True))
    if along < AGREES * size * math.hypot(*found):
        nearest = ", ".join(f"{e} {s:g}" for e, s in mixture.items())
        logger.warning(
            "%s is far from all emotions; the nearest mixture, %s, lies at valence %.2f, arousal "
            "%.2f.",
            said,
            nearest,
            there[0],
            there[1],
        )


def _checked(name: str, value: Any) -> float:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not -1 <= float(value) <= 1:  # NaN fails both comparisons
        raise DataError(f"{name} must be a number from -1 to 1, not {value!r}.")
    return float(value)
