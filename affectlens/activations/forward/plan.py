"""The plan of a capture: which texts run together, and which rows each shard of the store holds.

It follows from its inputs alone, so every process that makes it, today or after a crash, on this
machine or another, makes the same one.

Texts run longest first (a batch too big for the memory fails at once, and little is padding). Rows
of a position are numbered in that *storage order*; a shard is a range of them, cut between batches.
The table of labels is in corpus order and says in ``stored`` where each row lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from affectlens.activations.forward.tokenised import Ints, Texts, before, ranges
from affectlens.activations.positions import Position
from affectlens.core.places import Site
from affectlens.models.batches import BatchLimits, cut, longest_first

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class CapturePlan:
    """What is run, in which order, and where its rows go.

    Attributes:
        texts: In corpus order.
        sites: What is read of each batch.
        widths: Numbers per row of each site.
        positions: Where it is read.
        batches: Indices of the texts that run together, in the order in which they run.
        shards: Ranges of batches.
    """

    texts: Texts
    sites: tuple[Site, ...]
    widths: Mapping[Site, int]
    positions: tuple[Position, ...]
    batches: tuple[Ints, ...]
    shards: tuple[range, ...]

    @cached_property
    def order(self) -> Ints:
        """Indices of all texts in the order in which they run, ``[n]``."""
        return np.concatenate(self.batches)

    @cached_property
    def counts(self) -> Mapping[str, Ints]:
        """Rows that each text has at a position, ``[n]``."""
        return {position.name: _rows_of(self.texts, position) for position in self.positions}

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """Rows per position."""
        return {name: int(counts.sum()) for name, counts in self.counts.items()}

    @cached_property
    def starts(self) -> Mapping[str, Ints]:
        """Storage row at which each text starts, ``[n]``, by position."""
        return {name: self._starts(counts) for name, counts in self.counts.items()}

    @property
    def rows_per_batch(self) -> int:
        """Rows of all positions in the batch that has most of them."""
        counts = np.sum(list(self.counts.values()), axis=0)
        return max(int(counts[batch].sum()) for batch in self.batches)

    def _starts(self, counts: Ints) -> Ints:
        starts = np.empty(len(counts), np.int64)
        starts[self.order] = before(counts[self.order])
        return starts

    def shard_rows(self, shard: int) -> Mapping[str, tuple[int, int]]:
        """Storage rows ``[start, stop)`` of a shard, by position."""
        batches = self.shards[shard]
        first, last = self.batches[batches[0]][0], self.batches[batches[-1]][-1]
        return {
            name: (int(self.starts[name][first]), int(self.starts[name][last] + counts[last]))
            for name, counts in self.counts.items()
        }

    def shard_tokens(self, shard: int) -> int:
        """Tokens to run for a shard, padding not counted."""
        lengths = self.texts.lengths
        return sum(int(lengths[self.batches[i]].sum()) for i in self.shards[shard])

    def stored(self, position: str) -> Ints:
        """Storage row of each row in corpus order, int64."""
        counts = self.counts[position]
        return ranges(self.starts[position], counts)

    def tokens(self, position: Position) -> tuple[Ints, Ints]:
        """First token that each row in corpus order was read from, and how many."""
        spans, counts = (
            self.texts.spans[position.name].astype(np.int64),
            self.texts.read_of(position),
        )
        if position.pooled:
            return spans[:, 0], counts
        return ranges(spans[:, 0], counts), np.ones(int(counts.sum()), np.int64)

    def record_of(self, position: str, row: int) -> str:
        """Id of the record that a storage row comes from."""
        in_order = self.starts[position][self.order]
        place = int(np.searchsorted(in_order, row, side="right")) - 1
        return self.texts.records[self.order[place]].id

    def table(self) -> pa.Table:
        """Labels of the rows, position by position, each in corpus order."""
        from affectlens.activations.forward.labels import plan_table

        return plan_table(self)


def make_plan(
    texts: Texts,
    widths: Mapping[Site, int],
    positions: Sequence[Position],
    *,
    row_bytes: int,
    max_tokens_per_batch: int,
    shard_bytes: int,
    mix_lengths: bool = True,
) -> CapturePlan:
    """Cut texts into batches and batches into shards.

    Args:
        texts: From `read_texts`.
        widths: The sites, with the numbers per row of each.
        positions: Those that ``texts`` has spans of.
        row_bytes: Memory of one row of all sites.
        max_tokens_per_batch: Padded tokens of one forward pass; a longer text runs alone.
        shard_bytes: Bytes of the rows of a shard; only a single text with more gets a larger one.
        mix_lengths: Whether texts of different lengths may run together, padded.
    """
    sizes = np.sum([_rows_of(texts, position) for position in positions], axis=0) * row_bytes
    batches = _batches(texts.lengths, sizes, max_tokens_per_batch, shard_bytes, mix_lengths)
    shards = _shards([int(sizes[batch].sum()) for batch in batches], shard_bytes)
    return CapturePlan(texts, tuple(widths), dict(widths), tuple(positions), batches, shards)


def _batches(
    lengths: Ints, sizes: Ints, max_tokens: int, max_bytes: int, mixed: bool
) -> tuple[Ints, ...]:
    """Cut the texts, longest first, where a batch would be too long or its rows too many."""
    limits = BatchLimits(max_tokens, size=max_bytes, mixed=mixed)
    of_text, bytes_of = lengths.tolist(), sizes.tolist()
    batches = cut(longest_first(of_text), of_text, limits, bytes_of)
    return tuple(np.array(batch, np.int64) for batch in batches)


def _shards(sizes: Sequence[int], max_bytes: int) -> tuple[range, ...]:
    cuts, filled = [0], 0
    for batch, size in enumerate(sizes):
        if filled and filled + size > max_bytes:
            cuts.append(batch)
            filled = 0
        filled += size
    return tuple(range(a, b) for a, b in pairwise([*cuts, len(sizes)]))


def _rows_of(texts: Texts, position: Position) -> Ints:
    if position.pooled:
        return np.ones(len(texts), np.int64)
    return np.diff(texts.spans[position.name].astype(np.int64), axis=1)[:, 0]
