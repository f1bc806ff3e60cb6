"""Intervals and differences that respect clusters: rows of one scenario are drawn together.

Rows of a scenario share its content, so they are no independent observations. Everything here
draws whole clusters with replacement, as many as there are, and looks at the rows that come along.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    import torch

    Random = int | torch.Generator

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

DRAWS = 10_000
"""Of a paired difference, whose tail is its p."""
LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """What `paired_difference` says.

    Attributes:
        mean: Mean of the first minus mean of the second.
        low, high: 95 % interval (or of another level); NaN if there is but one cluster.
        p: Two-sided, no lower than so few clusters allow; NaN if there is but one.
        clusters: How many clusters were resampled.
    """

    mean: float
    low: float
    high: float
    p: float
    clusters: int


def times_drawn(clusters: int, draws: int, random: Random) -> Float[Floats, "draw cluster"]:
    """How often each cluster is drawn, in ``draws`` draws of as many clusters with replacement.

    Args:
        clusters: How many there are.
        draws: How many bootstrap samples.
        random: A seed of numpy's generator; or one of torch's, for what is drawn along with
            tensors.
    """
    if isinstance(random, int):
        chosen = np.random.default_rng(random).integers(0, clusters, size=(draws, clusters))
    else:
        import torch

        chosen = torch.randint(clusters, (draws, clusters), generator=random).numpy()
    row = np.arange(draws)[:, None] * clusters
    times = np.bincount((chosen + row).ravel(), minlength=draws * clusters)
    return times.reshape(draws, clusters).astype(np.float64)


def bootstrap_interval(
    values: Float[np.ndarray, "*series n"] | Sequence[float],
    clusters: Sequence[Hashable],
    *,
    draws: int = 2000,
    level: float = LEVEL,
    random: Random = 0,
) -> Float[Floats, "*series 2"]:
    """Percentile interval of a mean over rows, drawing whole clusters.

    Args:
        values: One number per row; several series of the same rows are drawn alike.
        clusters: The cluster of each row; they are numbered in their order as sorted.
        draws: Number of bootstrap samples.
        level: Coverage.
        random: See `times_drawn`.

    Returns:
        Both ends; NaN if all rows are of one cluster, which says nothing about other clusters.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    rows = np.asarray(values, dtype=np.float64)
    n = rows.shape[-1]
    if n == 0 or n != len(clusters):
        raise DataError(f"A bootstrap needs one group per row: {n} rows, {len(clusters)} groups.")
    index, count = _numbered(clusters)
    if count == 1:
        return np.full((*rows.shape[:-1], 2), math.nan)
    means = resampled(rows, index, times_drawn(count, draws, random))
    return np.moveaxis(np.quantile(means, _ends(level), axis=-1), 0, -1)


def ratio_interval(
    above: Float[np.ndarray, " n"],
    below: Float[np.ndarray, " n"],
    clusters: Sequence[Hashable],
    *,
    draws: int = 2000,
    level: float = LEVEL,
    random: Random = 0,
) -> tuple[float, float]:
    """Percentile interval of a ratio of two means over the same rows, drawing whole clusters.

    Both means are of the clusters that were drawn, so what is uncertain in the lower one counts.

    Args:
        above, below: One number per row each.
        clusters: The cluster of each row.
        draws: Number of bootstrap samples.
        level: Coverage.
        random: See `times_drawn`.

    Returns:
        Both ends; NaN if there is but one cluster, or the lower mean is not above zero in so many
        draws: then an end is unbounded.
    """
    index, count = _numbered(clusters)
    if count == 1:
        return math.nan, math.nan
    both = resampled(np.stack([above, below]), index, times_drawn(count, draws, random))
    if float(np.quantile(both[1], _ends(level)[0])) <= 0:
        return math.nan, math.nan
    kept = both[:, both[1] > 0]
    low, high = np.quantile(kept[0] / kept[1], _ends(level))
    return float(low), float(high)


def paired_difference(
    first: Float[np.ndarray, " n"] | Sequence[float],
    second: Float[np.ndarray, " n"] | Sequence[float],
    clusters: Sequence[Hashable],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    random: Random = 0,
) -> Difference:
    """Compare two conditions on the same rows by drawing whole clusters of differences.

    The deviations of the drawn means are widened by ``sqrt(G / (G - 1))`` for ``G`` clusters, since
    a bootstrap draws from its own sample and so underestimates the variance by that much. Twice the
    smaller share of draws on either side of zero is p (Davison and Hinkley, 1997, section 4.4, one
    added to both counts), so p is below ``1 - level`` where the interval leaves zero out, but for
    few clusters: a bootstrap of five that all point one way never crosses zero, although signs
    agree by chance once in sixteen times. So no p is below ``2 ** (1 - G)``, that of the sign test.

    Args:
        first: One number per row.
        second: Of the same rows, in the same order.
        clusters: The cluster of each row.
        draws: Number of bootstrap samples.
        level: Coverage of the interval.
        random: See `times_drawn`.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not 0 < len(a) == len(b) == len(clusters):
        raise DataError(
            f"A paired comparison needs both values and the group of every row: {len(a)} and "
            f"{len(b)} values, {len(clusters)} groups."
        )
    index, count = _numbered(clusters)
    mean = float((a - b).mean())
    if count == 1:
        return Difference(mean, math.nan, math.nan, math.nan, 1)
    samples = resampled(a - b, index, times_drawn(count, draws, random))
    samples = mean + (samples - mean) * math.sqrt(count / (count - 1))
    # Sums of many floats come out a hair beside zero where they should be zero.
    samples[np.abs(samples) < 1e-12] = 0.0
    below, above = int((samples <= 0).sum()), int((samples >= 0).sum())
    low, high = np.quantile(samples, _ends(level))
    p = min(1.0, max(2 * (1 + min(below, above)) / (draws + 1), 2.0 ** (1 - count)))
    return Difference(mean, float(low), float(high), p, count)


def against_draws(
    own: Float[np.ndarray, " n"] | Sequence[float],
    draws: Float[np.ndarray, "draw n"],
    clusters: Sequence[Hashable],
    *,
    samples: int = DRAWS,
    random: Random = 0,
) -> Difference:
    """Compare a condition with the mean of random ones: the larger p of two questions counts.

    Over clusters: is the difference more than other rows would give (`paired_difference`)? Over
    draws: is it more than one more draw would differ from them? With many rows the first alone
    finds every single draw to be above or below the mean of the others. The second is t with
    ``D - 1`` degrees of freedom of the mean gap over ``s * sqrt(1 + 1 / D)``, where ``s`` is by
    how much the ``D`` draws differ, as of one more observation of a normal sample. What they
    differ by is taken within rows, so that draws may have seen other rows; where every row has
    seen but one, clusters have draws of their own and the first question covers the second.

    Args:
        own: One number per row.
        draws: Random conditions on the same rows; NaN where a draw was not tried on a row, but
            every row has one draw at least. Draws without a row do not count.
        clusters: The cluster of each row.
        samples: Number of bootstrap samples.
        random: See `times_drawn`.

    Returns:
        Difference to the mean of the draws; p is 1 with fewer than two of them.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    values, tried = np.asarray(own, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    tried = tried[~np.isnan(tried).all(axis=1)]
    found = paired_difference(
        values, np.nanmean(tried, axis=0), clusters, draws=samples, random=random
    )
    if len(tried) < 2:
        return replace(found, p=1.0)
    seen = (~np.isnan(tried)).sum(axis=0)
    if (seen == 1).all():
        return found
    spread = _spread(tried[:, seen > 1], seen[seen > 1])
    beyond = p_of_one_more(found.mean, spread, len(tried), len(tried) - 1)
    return replace(found, p=max(found.p, float(beyond)))


def p_of_one_more(
    gap: Float[np.ndarray, "*series"] | float, spread: float, draws: int, freedom: int
) -> Float[np.ndarray, "*series"]:
    """Two-sided p of a distance to the mean of draws, as of one more draw of a normal sample.

    Args:
        gap: The distance.
        spread: Standard deviation of the draws. Where they do not differ, any distance is more.
        draws: How many the mean is of.
        freedom: Degrees of freedom of ``spread``.
    """
    from scipy.stats import t

    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(gap) / (np.float64(spread) * math.sqrt(1 + 1 / draws))
    return np.asarray(np.nan_to_num(2 * t.sf(far, freedom), nan=1.0))


def _spread(tried: Float[Floats, "draw n"], seen: Int[Ints, " n"]) -> float:
    """Standard deviation of what draws do, from how they differ on the same rows.

    A draw's distance from the mean of the ``k`` draws of its row holds ``(k - 1) / k`` of its own
    effect, and its part of the others': together ``(k - 1) / k * D / (D - 1)``. With all draws on
    all rows it is the deviation of their means.
    """
    draws = len(tried)
    share = (seen - 1) / seen * draws / (draws - 1)
    effects = (tried - np.nanmean(tried, axis=0)) / share
    there = ~np.isnan(effects).all(axis=1)
    return float(np.nanmean(effects[there], axis=1).std(ddof=1)) if there.sum() > 1 else 0.0


def holm(p: Float[np.ndarray, " n"] | Sequence[float]) -> Float[Floats, " n"]:
    """p-values of several hypotheses, adjusted so that any false one among them has rate p.

    Step-down: the k-th smallest of n times ``n - k + 1``, never falling, at most 1 (Holm, 1979).
    NaN, a test that could not be made, stays NaN and does not count.
    """
    given = np.asarray(p, dtype=np.float64)
    adjusted = np.full_like(given, np.nan)
    order = [i for i in np.argsort(given, kind="stable") if not np.isnan(given[i])]
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, float(given[i]) * (len(order) - rank))
        adjusted[i] = min(running, 1.0)
    return adjusted


def _numbered(clusters: Sequence[Hashable]) -> tuple[Int[Ints, " n"], int]:
    """Number of each row's cluster, and how many there are."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    return index, len(names)


def resampled(
    rows: Float[Floats, "*series n"], index: Int[Ints, " n"], times: Float[Floats, "draw cluster"]
) -> Float[Floats, "*series draw"]:
    """Mean over the rows that come along with each draw."""
    member = np.zeros((rows.shape[-1], times.shape[1]))
    member[np.arange(len(index)), index] = 1.0
    return (rows @ member) @ times.T / (times @ member.sum(0))


def _ends(level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    return tail, 1 - tail
