"""Sums over rows that stream by: moments per class, and weighted sums.

Everything is in float64 on the device of the rows; a device without float64 (MPS) hands its rows
to the CPU. Moments are merged batch by batch (Chan, Golub and LeVeque 1983), so that a mean far
from zero does not cancel the variance: squares are only ever taken of deviations from a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError

SCATTERS: tuple[str, ...] = ("none", "within", "class")
ROWS_AT_ONCE = 512  # of one batch, held in float64
_NO_ROW = torch.iinfo(torch.int64).max


def working_device(device: torch.device) -> torch.device:
    """Where sums of rows on a device are kept."""
    return torch.device("cpu") if device.type == "mps" else device


def zeros(shape: Sequence[int], device: torch.device) -> Tensor:
    """Room for sums in float64.

    Raises:
        DataError: If the device has not that much memory.
    """
    try:
        return torch.zeros(tuple(shape), dtype=torch.float64, device=device)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        size = 8 * int(np.prod(list(shape), dtype=np.int64)) / 2**20
        raise DataError(
            f"There is no room for sums of {size:.0f} MiB on {device}; ask for fewer sites, "
            "classes, covariances or resamplings."
        ) from error


@dataclass(frozen=True, eq=False)
class Members:
    """Which class each row of a batch belongs to.

    Attributes:
        classes: The classes that occur.
        index: Position in `classes` of each row.
        member: 1 where a row is of a class.
        rows: Number and rows of each class that occurs.
    """

    classes: Int[Tensor, " present"]
    index: Int[Tensor, " n"]
    member: Float[Tensor, "present n"]
    rows: tuple[tuple[int, Int[Tensor, " m"]], ...]

    @classmethod
    def of(cls, labels: np.ndarray, device: torch.device) -> Members:
        """Of class numbers, one per row."""
        classes, index = np.unique(labels, return_inverse=True)
        of_class = index.reshape(-1) == np.arange(len(classes))[:, None]
        return cls(
            classes=torch.from_numpy(classes.astype(np.int64)).to(device),
            index=torch.from_numpy(index.reshape(-1)).to(device),
            member=torch.from_numpy(of_class.astype(np.float64)).to(device),
            rows=tuple(
                (int(number), torch.from_numpy(np.flatnonzero(own)).to(device))
                for number, own in zip(classes, of_class, strict=True)
            ),
        )


class ClassMoments:
    """Count, mean, squared deviations and row RMS of each class.

    Memory: 16 bytes per class and unit; with scatter ``"within"`` 8 bytes per pair of units, with
    ``"class"`` as much for each class.

    Args:
        n_classes: How many.
        width: Units.
        device: Of the sums.
        scatter: Which sums of products of deviations to keep: ``"none"``, ``"within"`` (from the
            mean of the row's class, all classes together) or ``"class"`` (of each class).
    """

    def __init__(
        self, n_classes: int, width: int, device: torch.device, scatter: str = "none"
    ) -> None:
        self.count = zeros([n_classes, 1], device)
        self.mean = zeros([n_classes, width], device)
        self.deviation = zeros([n_classes, width], device)  # sum of squares around the mean
        self.row_rms = zeros([n_classes], device)  # sum over rows
        self.scatter: Tensor | None = None
        if scatter != "none":
            shape = [width, width] if scatter == "within" else [n_classes, width, width]
            self.scatter = zeros(shape, device)

    def add(
        self, x: Float[Tensor, "n width"], mean_square: Float[Tensor, " n"], who: Members
    ) -> None:
        """Take rows into account.

        Args:
            x: Rows in float64 on the device of the sums.
            mean_square: Mean over the units of their squares.
            who: Their classes.
        """
        n = who.member.sum(1, keepdim=True)
        mean = who.member @ x / n
        residual = x - mean[who.index]
        seen = self.count[who.classes]
        step = mean - self.mean[who.classes]
        between = n * seen / (n + seen)  # weight of the squared step, as of two points
        inside = who.member @ residual.square()
        self.count.index_add_(0, who.classes, n)
        self.mean.index_add_(0, who.classes, step * (n / (n + seen)))
        self.deviation.index_add_(0, who.classes, inside + step.square() * between)
        self.row_rms.index_add_(0, who.classes, who.member @ mean_square.sqrt())
        if self.scatter is None:
            return
        step = step * between.sqrt()
        if self.scatter.ndim == 2:
            spread = torch.cat([residual, step])
            self.scatter.addmm_(spread.T, spread)
            return
        for i, (number, rows) in enumerate(who.rows):
            spread = torch.cat([residual[rows], step[i : i + 1]])
            self.scatter[number].addmm_(spread.T, spread)


class WeightedSums:
    """``sum_i w[k, i] x[i]`` for several weightings, and ``sum_i ||x[i]||²``.

    Memory: 8 bytes per weighting and unit.

    Args:
        k: Weightings.
        width: Units.
        device: Of the sums.
    """

    def __init__(self, k: int, width: int, device: torch.device) -> None:
        self.total = zeros([k, width], device)
        self.square = zeros([], device)

    def add(
        self,
        x: Float[Tensor, "n width"],
        mean_square: Float[Tensor, " n"],
        weight: Float[Tensor, "k n"],
    ) -> None:
        """Take rows into account, all in float64 on the device of the sums."""
        self.total.addmm_(weight, x)
        self.square += mean_square.sum() * x.shape[1]


class FirstBad:
    """The first row that is not finite, remembered on the device: asking is what waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._row = torch.full([], _NO_ROW, dtype=torch.int64, device=device)

    def add(self, mean_square: Float[Tensor, " n"], start: int) -> None:
        """Look at the rows from number ``start`` on, by their mean squares in float64."""
        rows = torch.arange(start, start + len(mean_square), device=self._row.device)
        bad = torch.where(mean_square.isfinite(), _NO_ROW, rows)
        self._row = torch.minimum(self._row, bad.amin())

    def row(self) -> int | None:
        """Its number, if there is one."""
        found = int(self._row)
        return None if found == _NO_ROW else found
