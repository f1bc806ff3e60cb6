"""Labels in other orders: the orders, and the p of one score or of many."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

Floats = np.ndarray[Any, np.dtype[np.float64]]

EQUAL = 1e-9
"""Scores that differ by less, in units of their spread, are as good as each other."""


def orders(n: int, permutations: int, seed: int, *, exact_to: int) -> Int[np.ndarray, "order n"]:
    """Orders of ``n`` things to hold what there is against; the first is the one there is.

    All of them up to ``exact_to`` things, else so many random ones.
    """
    if n <= exact_to:
        return np.array(list(itertools.permutations(range(n))))
    generator = np.random.default_rng(seed)
    random = [generator.permutation(n) for _ in range(permutations)]
    return np.array([np.arange(n), *random])


def westfall_young(
    real: Float[Floats, " n"], null: Float[Floats, "order n"]
) -> tuple[Float[Floats, " n"], Float[Floats, " n"]]:
    """p of several scores against the same permutations of all of them.

    Each score is taken in units of its own spread over all orders, the real one among them, so that
    scores of any scale stand side by side. Family-wise p asks how often the highest of all scores
    that are left does as well, step by step from the highest real one downwards (maxT, Westfall and
    Young, 1993). As scores that go together exceed together, it costs little where Holm's
    correction would cost a factor of n: with 99 permutations p can be .01 for any number of scores.

    Args:
        real: Scores; NaN is no score, and stays so.
        null: The same scores under permutations, each of which is the same for all scores. What
            could not be scored there (NaN) counts as doing as well.

    Returns:
        ``(1 + permutations that do as well) / (1 + permutations)`` of each score by itself, and
        corrected for all of them.
    """
    alone, corrected = np.full_like(real, np.nan), np.full_like(real, np.nan)
    real, null = _in_own_spread(real, null)
    order = [i for i in np.argsort(-real, kind="stable") if not np.isnan(real[i])]
    running = 0.0
    for rank, i in enumerate(order):
        alone[i] = _share(null[:, i] >= real[i] - EQUAL)
        highest = null[:, order[rank:]].max(1)
        running = max(running, _share(highest >= real[i] - EQUAL))
        corrected[i] = running
    return alone, corrected


def _in_own_spread(
    real: Float[Floats, " n"], null: Float[Floats, "order n"]
) -> tuple[Float[Floats, " n"], Float[Floats, "order n"]]:
    both = np.concatenate([real[None], null])
    finite = np.isfinite(both)
    count = np.maximum(finite.sum(0), 1)
    mean = np.where(finite, both, 0.0).sum(0) / count
    away = np.where(finite, both - mean, 0.0)
    spread = np.sqrt((away**2).sum(0) / count)
    scaled = np.where(finite, away / np.where(spread > 0, spread, 1.0), both)
    return scaled[0], np.where(np.isnan(scaled[1:]), np.inf, scaled[1:])


def _share(hits: Bool[np.ndarray, " order"]) -> float:
    """With the labels as they are among the orders."""
    return float((1 + hits.sum()) / (1 + len(hits)))
