"""Eight-bit rows: a quarter of float32, half of bfloat16.

Residual streams have a few columns a hundred times larger than the rest, and rows of different
length. So each column is divided by its root mean square within the shard, then each row by its
largest value over 127. Symmetric: zero stays zero.

    value ≈ code · row_scale[row] · column_scale[column],  |error| ≤ row_scale · column_scale / 2

On probes of the default model (nine layers, 280 held-out replies) no layer's accuracy moved by more
than one reply, 0.36 points (``python benchmarks/store.py --probes``). With row scales alone, one
moved by 2.5 points.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

LARGEST = 127


def quantise(
    values: Float[Tensor, "n width"],
) -> tuple[Int8[Tensor, "n width"], Float[Tensor, " n"], Float[Tensor, " width"]]:
    """Codes, row scales and column scales of finite float32 rows on the CPU.

    NumPy adds up in one order whatever the threads, so that the same rows give the same bytes.
    """
    x = values.numpy()
    columns = np.sqrt(np.square(x, dtype=np.float64).mean(axis=0)).astype(np.float32)
    divided = x / np.where(columns > 0, columns, 1)
    rows = np.abs(divided).max(axis=1, initial=0) / np.float32(LARGEST)
    codes = np.rint(divided / np.where(rows > 0, rows, 1)[:, None])
    np.clip(codes, -LARGEST, LARGEST, out=codes)
    return (
        torch.from_numpy(codes.astype(np.int8)),
        torch.from_numpy(rows),
        torch.from_numpy(columns),
    )


def dequantise(
    codes: Int8[Tensor, "n width"],
    row_scale: Float[Tensor, " n"],
    column_scale: Float[Tensor, " width"],
) -> Float[Tensor, "n width"]:
    """The float32 rows that codes stand for."""
    return codes.float().mul_(row_scale[:, None]).mul_(column_scale)
