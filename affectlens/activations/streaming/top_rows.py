"""The rows with the largest values of every unit, kept while rows stream by.

A value and its row number share one 64-bit key whose order is "larger value first, then smaller
row number": every key is unique, so ties do not depend on batches, their order or the device.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LOW = (1 << 32) - 1
_EMPTY = torch.iinfo(torch.int64).min


class TopRows:
    """The largest values of each unit so far; 8 bytes per unit and place.

    Args:
        k: How many to keep per unit.
        width: Units.
        device: Where to keep them.
    """

    def __init__(self, k: int, width: int, device: torch.device) -> None:
        self._keys = torch.full((width, k), _EMPTY, dtype=torch.int64, device=device)

    def add(self, values: Float[Tensor, "n width"], rows: Int[Tensor, " n"]) -> None:
        """Take rows into account.

        Args:
            values: Finite activations; compared as float32.
            rows: Their numbers, below 2³² and each given once.
        """
        bits = (values.float() + 0.0).contiguous().view(torch.int32)  # + 0.0: no negative zero
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # as integers in the order of the floats
        keys = (ordered.long() << 32) | (_LOW - rows)[:, None]
        k = self._keys.shape[1]
        self._keys = torch.cat([self._keys, keys.T], dim=1).topk(k, dim=1).values

    def result(self) -> tuple[Float[Tensor, "k width"], Int[Tensor, "k width"]]:
        """Values and row numbers on the CPU, largest first; k is less if there were fewer rows."""
        keys = self._keys.T.cpu()
        keys = keys[(keys != _EMPTY).all(1)]
        ordered = (keys >> 32).to(torch.int32)
        bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
        return bits.view(torch.float32), _LOW - (keys & _LOW)
