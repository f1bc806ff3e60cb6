"""Numbers about replies that need no model: repetition, diversity, capitals, intervals.

Definitions follow the evaluation protocol of AxBench (arXiv 2501.17148) where it has one: the score
of a reply is a harmonic mean that is zero when any part is zero, and arms are compared by its mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from affectlens.core import DataError

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """Words of a text, in their original case."""
    return _WORD.findall(text)


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of different n-grams among all n-grams of each text, averaged over texts.

    Per text rather than pooled, so that the figure does not fall with the number of texts.
    A text shorter than ``n`` words has no n-gram and is left out; 0.0 if all are.
    """
    shares: list[float] = []
    for text in texts:
        tokens = [w.lower() for w in words(text)]
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return float(np.mean(shares)) if shares else 0.0


def repetition_rate(texts: Sequence[str], n: int = 3) -> float:
    """Share of n-grams that already occurred earlier in the same text: 1 - distinct-n."""
    usable = [t for t in texts if len(words(t)) >= n]
    return 1.0 - distinct_n(usable, n) if usable else 0.0


def capitals_rate(texts: Sequence[str]) -> float:
    """Share of words of three or more letters written in capitals only, over all texts."""
    long_words = [w for text in texts for w in words(text) if len(w) >= 3]
    return sum(w.isupper() for w in long_words) / len(long_words) if long_words else 0.0


def mean_words(texts: Sequence[str]) -> float:
    """Mean length of a text in words."""
    return float(np.mean([len(words(t)) for t in texts])) if texts else 0.0


def harmonic(parts: Sequence[float]) -> float:
    """Harmonic mean of scores in [0, 1]; zero as soon as one of them is zero."""
    if any(p <= 0 for p in parts):
        return 0.0
    return len(parts) / sum(1.0 / p for p in parts)


FLUENCY_ZERO = 16.0
"""Perplexity ratio at which the fluency score reaches 0; it falls linearly in nats from 1."""


def fluency_score(excess_nats: float) -> float:
    """Map mean extra nats per token under the unsteered model to a score in [0, 1].

    1 at (or under) the perplexity of unsteered text, 0.5 at four times it, 0 at sixteen times it.
    """
    return min(1.0, max(0.0, 1.0 - excess_nats / math.log(FLUENCY_ZERO)))


def bootstrap_ci(
    values: Float[np.ndarray, " n"] | Sequence[float],
    groups: Sequence[str],
    *,
    statistic: Callable[[Float[np.ndarray, " n"]], float] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a mean over rows, resampling whole groups (scenarios), not rows.

    Args:
        values: One number per row.
        groups: The group of each row; rows of one group are drawn together.
        statistic: Of the drawn rows; the mean if None (and then computed from group sums).
        draws: Number of bootstrap samples.
        level: Coverage.
        seed: Of the resampling.

    Returns:
        Both ends; NaN if all rows are of one group, which says nothing about other groups.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    rows = np.asarray(values, dtype=np.float64)
    if len(rows) == 0 or len(rows) != len(groups):
        raise DataError(f"A bootstrap needs one group per row: {len(rows)} rows, {len(groups)}.")
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) == 1:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(names), size=(draws, len(names)))
    if statistic is None:
        sums = np.bincount(index, weights=rows, minlength=len(names))
        counts = np.bincount(index, minlength=len(names))
        samples = sums[drawn].sum(1) / counts[drawn].sum(1)
    else:
        members = [np.flatnonzero(index == g) for g in range(len(names))]
        samples = np.array(
            [statistic(rows[np.concatenate([members[g] for g in d])]) for d in drawn]
        )
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """What `paired_bootstrap` says.

    Attributes:
        mean: Mean of the first minus mean of the second.
        low, high: 95 % interval (or of another level); NaN if there is but one group.
        p: Two-sided; NaN if there is but one group.
        groups: How many groups were resampled.
    """

    mean: float
    low: float
    high: float
    p: float
    groups: int


def paired_bootstrap(
    first: Float[np.ndarray, " n"] | Sequence[float],
    second: Float[np.ndarray, " n"] | Sequence[float],
    groups: Sequence[str],
    *,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two arms on the same rows by resampling whole groups (scenarios) of differences.

    The deviations of the drawn means are widened by ``sqrt(G / (G - 1))`` for ``G`` groups, since a
    bootstrap draws from its own sample and so underestimates the variance by that much. Twice the
    smaller share of draws on either side of zero is p (Davison and Hinkley, 1997, section 4.4, one
    added to both counts), so p is below ``1 - level`` where the interval leaves zero out.

    Args:
        first: One number per row.
        second: Of the same rows, in the same order.
        groups: The group of each row.
        draws: Number of bootstrap samples.
        level: Coverage of the interval.
        seed: Of the resampling.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not 0 < len(a) == len(b) == len(groups):
        raise DataError(
            f"A paired comparison needs both values and the group of every row: {len(a)} and "
            f"{len(b)} values, {len(groups)} groups."
        )
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    mean, count = float((a - b).mean()), len(names)
    if count == 1:
        return Difference(mean, math.nan, math.nan, math.nan, 1)
    sums, sizes = np.bincount(index, weights=a - b), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(0, count, size=(draws, count))
    samples = sums[drawn].sum(1) / sizes[drawn].sum(1)
    samples = mean + (samples - mean) * math.sqrt(count / (count - 1))
    # Sums of many floats come out a hair beside zero where they should be zero.
    samples[np.abs(samples) < 1e-12] = 0.0
    below, above = int((samples <= 0).sum()), int((samples >= 0).sum())
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    p = min(1.0, 2 * (1 + min(below, above)) / (draws + 1))
    return Difference(mean, float(low), float(high), p, count)
