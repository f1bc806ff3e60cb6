"""Batches by length: everything in its order, within the limits, and no batch cut too early."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from affectlens.models.batches import BatchLimits, cut, longest_first, shortest_first

RNG = random.Random(0)
LIMITS = [
    BatchLimits(),
    BatchLimits(tokens=40),
    BatchLimits(tokens=40, mixed=False),
    BatchLimits(rows=4),
    BatchLimits(tokens=64, size=25),
    BatchLimits(tokens=30, rows=3, size=30, mixed=False),
]


def allowed(batch: list[int], lengths: list[int], sizes: list[int], limits: BatchLimits) -> bool:
    """What the limits say, in plain sight."""
    tokens = len(batch) * max(lengths[row] for row in batch)
    return (
        (limits.tokens is None or tokens <= limits.tokens)
        and (limits.rows is None or len(batch) <= limits.rows)
        and (limits.size is None or sum(sizes[row] for row in batch) <= limits.size)
        and (limits.mixed or len({lengths[row] for row in batch}) == 1)
    )


@pytest.mark.parametrize("limits", LIMITS, ids=str)
@pytest.mark.parametrize("first", [shortest_first, longest_first])
def test_batches_are_as_large_as_the_limits_allow(
    limits: BatchLimits, first: Callable[[list[int]], list[int]]
) -> None:
    for _ in range(50):
        lengths = [RNG.randint(1, 50) for _ in range(RNG.randint(1, 30))]
        sizes = [RNG.randint(1, 12) for _ in lengths]
        order = first(lengths)
        batches = cut(order, lengths, limits, sizes)
        assert [row for batch in batches for row in batch] == order
        assert all(len(b) == 1 or allowed(b, lengths, sizes, limits) for b in batches)
        for one, following in pairwise(batches):
            assert not allowed([*one, following[0]], lengths, sizes, limits)


def test_equal_lengths_keep_their_order() -> None:
    assert shortest_first([2, 1, 2, 1]) == [1, 3, 0, 2]
    assert shortest_first([2, 1, 2, 1], [2, 0, 3]) == [3, 2, 0]
    assert longest_first([2, 1, 2, 1]) == [0, 2, 1, 3]


def test_nothing_to_run() -> None:
    assert cut([], [], BatchLimits(tokens=8)) == []
