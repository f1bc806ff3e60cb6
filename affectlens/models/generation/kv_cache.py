"""A key-value cache that is written in place instead of being copied at every token."""

from __future__ import annotations

import sys
from typing import Any, cast

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """`DynamicLayer` over a buffer with room to spare: appending a token writes one column."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Append keys and values ``[batch, kv_head, pos, d]``; return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self._buffers is None or end > self._buffers[0].shape[-2]:
            self._grow(key_states, value_states, max(end, self.capacity), start)
        keys, values = cast("tuple[Tensor, Tensor]", self._buffers)
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep, drop or repeat rows of the batch."""
        if self._buffers is None:
            return
        length = self.get_seq_length()
        keys, values = (buffer.index_select(0, indices) for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def _grow(self, key_states: Tensor, value_states: Tensor, capacity: int, used: int) -> None:
        """Make room for ``capacity`` columns and take over the ``used`` ones."""
        old = self._buffers
        shape = (*key_states.shape[:2], capacity)
        keys = key_states.new_empty((*shape, key_states.shape[-1]))
        values = value_states.new_empty((*shape, value_states.shape[-1]))
        if old is not None:
            keys[:, :, :used], values[:, :, :used] = (buffer[:, :, :used] for buffer in old)
        self._buffers = keys, values


def growing_cache(hf: Any, capacity: int) -> DynamicCache:
    """The cache Transformers would use, its full-attention layers replaced by `GrowingLayer`.

    A family that takes only a cache of its own (MiniMax) gets that.

    Args:
        hf: The model; its config says which layers see only a sliding window.
        capacity: Longest sequence expected, in tokens; longer ones still work.
    """
    for value in vars(sys.modules[type(hf).__module__]).values():
        if (
            isinstance(value, type)
            and issubclass(value, DynamicCache)
            and value is not DynamicCache
        ):
            return value()
    cache = DynamicCache(config=hf.config)
    cache.layers = [
        GrowingLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
