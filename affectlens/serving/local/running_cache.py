"""Keys and values of replies that are written together, though they began at different times.

All rows end in the same column, and what lies left of a row's first token is masked: so every
family whose rows do not notice padding on the left can be served. A row that comes is written into
its place, one that leaves gives its place to the last row; nobody else is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from affectlens.models.generation.kv_cache import GrowingLayer, growing_cache
from affectlens.models.step import takes_cache
from affectlens.serving.local.prefix_store import KeysAndValues

ROOM = 64
"""Columns by which buffers grow beyond what is needed now, on either side."""


def plain_cache(hf: Any, capacity: int) -> DynamicCache | None:
    """A cache that keeps every column of every layer; None if the family needs another kind.

    Layers with a sliding window get one too: their mask leaves out what lies outside of it.
    """
    if takes_cache(hf) != "past_key_values":
        return None
    cache = growing_cache(hf, capacity)
    kinds = {type(layer) for layer in cache.layers}
    if type(cache) is not DynamicCache or not kinds:
        return None
    if not kinds <= {GrowingLayer, DynamicSlidingWindowLayer}:
        return None
    layers: list[Any] = [GrowingLayer(capacity) for _ in cache.layers]
    cache.layers = layers
    return cache


class _Layer(DynamicLayer):
    """One layer's part. The first ``rows`` rows and the columns from ``start`` on are in use."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: tuple[Tensor, Tensor] | None = None
        self.rows = self.start = self.end = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Append one column; return all of them."""
        assert self.buffers is not None
        keys, values = self.buffers
        keys[: self.rows, :, self.end] = key_states[:, :, 0]
        values[: self.rows, :, self.end] = value_states[:, :, 0]
        self.end += 1
        self.show()
        return self.keys, self.values

    def show(self) -> None:
        """Let Transformers see what is in use."""
        assert self.buffers is not None
        self.keys, self.values = (
            buffer[: self.rows, :, self.start : self.end] for buffer in self.buffers
        )

    def rearrange(self, rows: int, columns: int, end: int, like: KeysAndValues) -> None:
        """Move what is in use into new buffers.

        Args:
            rows, columns: Their size.
            end: Where the last column in use comes to lie.
            like: Keys and values to take shape and format from.
        """
        old = self.buffers
        made: list[Tensor] = []
        for i, example in enumerate(like):
            heads, _, width = example.shape
            # Zeros: what is masked is still multiplied by zero, and NaN would survive that.
            buffer = example.new_zeros((rows, heads, columns, width))
            if old is not None and self.rows:
                used = self.end - self.start
                taken = old[i][: self.rows, :, self.start : self.end]
                buffer[: self.rows, :, end - used : end] = taken
            made.append(buffer)
        self.buffers = made[0], made[1]
        self.start, self.end = end - (self.end - self.start), end


class RunningCache:
    """The cache of a batch that rows join and leave.

    Attributes:
        cache: What a model is given.
        lengths: Tokens of every row.

    Args:
        hf: The model, one for which `plain_cache` gives a cache.
    """

    def __init__(self, hf: Any) -> None:
        self.cache = DynamicCache(config=hf.config)
        self.layers = [_Layer() for _ in self.cache.layers]
        layers: list[Any] = list(self.layers)
        self.cache.layers = layers
        self.lengths: list[int] = []
        self._rows = self._columns = 0
        self._start = self._end = 0

    def join(self, parts: Sequence[KeysAndValues]) -> None:
        """Add a row.

        Args:
            parts: Of every layer, keys and values of its tokens.
        """
        length = parts[0][0].shape[1]
        self._make_room(length, parts)
        row, first = len(self.lengths), self._end - length
        self.lengths.append(length)
        self._start = self._end - max(self.lengths)
        for layer, part in zip(self.layers, parts, strict=True):
            assert layer.buffers is not None
            for buffer, new in zip(layer.buffers, part, strict=True):
                buffer[row, :, :first] = 0
                buffer[row, :, first : self._end] = new
            self._show(layer)

    def leave(self, gone: Sequence[int]) -> list[int]:
        """Drop rows.

        Args:
            gone: Their places.

        Returns:
            For every row that is left, the place it had.
        """
        places = list(range(len(self.lengths)))
        for at in sorted(gone, reverse=True):
            last = len(places) - 1
            if at != last:
                for layer in self.layers:
                    assert layer.buffers is not None
                    for buffer in layer.buffers:
                        buffer[at, :, : self._end] = buffer[last, :, : self._end]
                places[at], self.lengths[at] = places[last], self.lengths[last]
            places.pop()
            self.lengths.pop()
        self._start = self._end - max(self.lengths, default=0)
        for layer in self.layers:
            self._show(layer)
        return places

    def begin_step(self) -> Int[Tensor, "row pos"]:
        """The mask of a pass that appends one token to every row."""
        like = self._like()
        if self._end == self._columns:
            width = self._end - self._start
            self._grow(self._rows, width + 2 * ROOM + max(ROOM, width), width + ROOM, like)
        columns = torch.arange(self._end - self._start + 1, device=like[0][0].device)
        lengths = torch.tensor(self.lengths, device=columns.device)
        return (columns >= (columns[-1] - lengths)[:, None]).long()

    def end_step(self) -> None:
        """Note that the pass is done."""
        self._end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def _make_room(self, length: int, parts: Sequence[KeysAndValues]) -> None:
        rows = self._rows
        if len(self.lengths) == rows:
            rows = max(4, 2 * rows)
        if not self.lengths:  # nobody has to be moved
            self._start = self._end = 0
            for layer in self.layers:
                layer.rows = layer.start = layer.end = 0
        if rows > self._rows or length > self._end:
            used = max(length, self._end - self._start)
            # As much again on the right, so that copying costs little per token.
            self._grow(rows, used + max(2 * ROOM, used), used + ROOM, parts)

    def _grow(self, rows: int, columns: int, end: int, like: Sequence[KeysAndValues]) -> None:
        end = max(end, self._end - self._start)
        columns = max(columns, end + ROOM)
        for layer, part in zip(self.layers, like, strict=True):
            layer.rearrange(rows, columns, end, part)
        self._rows, self._columns = rows, columns
        self._start, self._end = end - (self._end - self._start), end

    def _like(self) -> list[KeysAndValues]:
        found: list[KeysAndValues] = []
        for layer in self.layers:
            assert layer.buffers is not None
            keys, values = layer.buffers
            found.append((keys[0], values[0]))
        return found

    def _show(self, layer: _Layer) -> None:
        assert layer.buffers is not None
        layer.rows, layer.start, layer.end = len(self.lengths), self._start, self._end
        keys, _ = layer.buffers
        layer.is_initialized, layer.dtype, layer.device = True, keys.dtype, keys.device
        layer.show()
