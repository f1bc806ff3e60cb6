"""Memory for the rows of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

_ALIGNED = 64


class Block:
    """One piece of memory per device, which every batch uses again.

    Rows are kept while the pass goes on making and freeing large tensors. As tensors of their own
    they would leave the heap full of holes between them, half a gigabyte on the default model.

    Args:
        numbers: How many float32 numbers the largest batch keeps.
        tensors: In how many tensors.
    """

    def __init__(self, numbers: int, tensors: int) -> None:
        self._size = 4 * numbers + _ALIGNED * tensors
        self._memory: dict[torch.device, Tensor] = {}
        self._used: dict[torch.device, int] = {}

    def clear(self) -> None:
        """Forget what was taken: the next batch overwrites it."""
        self._used.clear()

    def shrink(self) -> None:
        """Give the memory back, and take half of it from now on."""
        self._memory.clear()
        self._used.clear()
        self._size //= 2

    def take(
        self, n: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> Shaped[Tensor, "n width"]:
        """Room for some rows, which holds anything."""
        start, size = self._used.get(device, 0), n * width * dtype.itemsize
        if start + size > self._size:
            return torch.empty(n, width, dtype=dtype, device=device)
        if device not in self._memory:
            self._memory[device] = torch.empty(self._size, dtype=torch.uint8, device=device)
        self._used[device] = start + -(-size // _ALIGNED) * _ALIGNED
        return self._memory[device][start : start + size].view(dtype).view(n, width)
