"""How far readings move between two conditions on the same texts, and whether that is chance.

Under the hypothesis that a condition does nothing, both readings of a text could as well have
changed places; whole groups of texts change places here, as they are drawn together elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from affectlens.core.statistics import paired_difference

Floats = np.ndarray[Any, np.dtype[np.float64]]
SWAPS = 999


@dataclass(frozen=True)
class Moved:
    """A distance between two conditions, beside what swapped conditions show.

    Attributes:
        value: The distance.
        null: Its mean over swaps; a distance is never below zero, so this is not zero.
        p: Share of swaps, the real one among them, that are as far apart.
    """

    value: float
    null: float
    p: float


def variation(
    now: Float[Floats, "n class"],
    before: Float[Floats, "n class"],
    groups: Sequence[str],
    seed: int,
    swaps: int = SWAPS,
) -> Moved:
    """Total variation between the mean probabilities of two conditions, 0 to 1.

    Args:
        now: Probabilities of each text under a condition.
        before: Under the other one.
        groups: Of each text.
        seed: Of the swaps.
        swaps: How many.
    """
    by_group, count = _sums(now - before, groups)
    signs = _signs(len(by_group), swaps, seed)
    apart = 0.5 * np.abs(signs @ by_group / count).sum(1)
    real, null = apart[0], apart[1:]
    return Moved(float(real), float(null.mean()), float((apart >= real - 1e-12).mean()))


def agreement_by_chance(
    said: Int[np.ndarray, " n"],
    truth: Int[np.ndarray, " n"],
    groups: Sequence[str],
    draws: int,
) -> tuple[float, float]:
    """Agreement that the frequencies of both alone would give, and p of what is beyond it.

    The first is the mean over all orders of the truths (Cohen's chance); p is two-sided, of a
    bootstrap that draws whole groups.
    """
    among = np.array([(truth == one).mean() for one in said])
    beyond = paired_difference((said == truth).astype(float), among, groups, draws=draws)
    return float(among.mean()), beyond.p


def standard_shift(
    now: Float[Floats, "n d"], before: Float[Floats, "n d"], along: Float[Floats, "d k"]
) -> Float[Floats, " k"]:
    """Mean change along directions, in standard deviations of the texts before it."""
    start = before @ along
    spread = start.std(0)
    with np.errstate(all="ignore"):
        return np.where(spread > 0, ((now - before) @ along).mean(0) / spread, 0.0)


def beyond_random(
    now: Float[Floats, "n d"],
    before: Float[Floats, "n d"],
    along: Float[Floats, "d k"],
    seed: int,
    draws: int = SWAPS,
) -> tuple[Float[Floats, " k"], float, Float[Floats, " k"]]:
    """Shift along directions, the mean size along random ones, and p of being so large by chance.

    Args:
        now, before: Activations of each text under two conditions.
        along: Directions, one a column.
        seed: Of random directions.
        draws: How many of them.
    """
    random = np.random.default_rng(seed).standard_normal((now.shape[1], draws))
    shift, null = standard_shift(now, before, along), standard_shift(now, before, random)
    size = np.abs(null)
    p = (1 + (size[:, None] >= np.abs(shift)[None]).sum(0)) / (1 + draws)
    return shift, float(size.mean()), p


def _sums(rows: Float[Floats, "n k"], groups: Sequence[str]) -> tuple[Floats, int]:
    """Sum over each group, and how many rows there are."""
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    found = np.zeros((len(names), rows.shape[1]))
    np.add.at(found, index, rows)
    return found, len(rows)


def _signs(groups: int, swaps: int, seed: int) -> Float[Floats, "swap group"]:
    """+1 where a group stays, -1 where its conditions change places; the first stay all."""
    swapped: Bool[np.ndarray, "swap group"] = (
        np.random.default_rng(seed).random((swaps, groups)) < 0.5
    )
    return np.concatenate([np.ones((1, groups)), np.where(swapped, -1.0, 1.0)])
