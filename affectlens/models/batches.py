"""Which texts run together: of like length, so that little is padding, and within the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchLimits:
    """What a batch may hold; a text that is too much by itself runs alone.

    Attributes:
        tokens: Padded tokens, that is rows times the longest row; None: no bound.
        rows: Rows; None: no bound.
        size: Sum of the sizes of its rows; None: no bound.
        mixed: Whether rows of different lengths may run together, padded.
    """

    tokens: int | None = None
    rows: int | None = None
    size: int | None = None
    mixed: bool = True


def shortest_first(lengths: Sequence[int], rows: Iterable[int] | None = None) -> list[int]:
    """Rows (default: all) by length, equal ones in the order in which they came."""
    return sorted(range(len(lengths)) if rows is None else rows, key=lambda row: lengths[row])


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Rows by falling length: a batch too big for the memory fails at once."""
    return sorted(range(len(lengths)), key=lambda row: -lengths[row])


def cut(
    order: Iterable[int],
    lengths: Sequence[int],
    limits: BatchLimits,
    sizes: Sequence[int] | None = None,
) -> list[list[int]]:
    """Cut rows in some order into batches, each as large as the limits allow.

    Args:
        order: Indices of rows, as a rule by length.
        lengths: Tokens of each row.
        limits: What a batch may hold.
        sizes: What each row adds to ``limits.size``.
    """
    batches: list[list[int]] = []
    longest = size = 0
    for row in order:
        length, more = lengths[row], sizes[row] if sizes is not None else 0
        n = len(batches[-1]) + 1 if batches else 1
        full = not batches or any(
            bound is not None and amount > bound
            for amount, bound in (
                (n * max(longest, length), limits.tokens),
                (n, limits.rows),
                (size + more, limits.size),
            )
        )
        if full or (length != longest and not limits.mixed):
            batches.append([])
            longest = size = 0
        batches[-1].append(row)
        longest, size = max(longest, length), size + more
    return batches
