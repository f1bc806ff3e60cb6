"""What exact probes need of their rows: weighted means and products, added up in float64.

Rows that every resample weighs alike are added up together, so folds cost one pass over the rows
and not one each. Deviations are taken from the mean of the first rows, so that a mean far from zero
does not cancel the variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.activations.streaming.accumulators import working_device
from affectlens.core.errors import DataError

Chunk = tuple["Float[Tensor, 'm d']", "Int[Tensor, ' m']"]
"""Some rows, and their numbers among all rows."""

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class RowMoments:
    """Of the rows of one site under each resampling, in float64.

    Attributes:
        total: Sum of the weights ``w``.
        mean: Weighted mean of the rows ``x``.
        middle: Weighted mean of the targets ``t``.
        gram: ``sum_i w_i (x_i - mean)(x_i - mean)'``.
        cross: ``sum_i w_i (x_i - mean)(t_i - middle)'``.
        dtype: Of the rows; what is made of them should be of it.
    """

    total: Float[Tensor, " resample"]
    mean: Float[Tensor, "resample d"]
    middle: Float[Tensor, "resample target"]
    gram: Float[Tensor, "resample d d"]
    cross: Float[Tensor, "resample d target"]
    dtype: torch.dtype

    @property
    def scale(self) -> Float[Tensor, "resample d"]:
        """Standard deviation of each feature as ``StandardScaler`` has it; 1 for a constant one."""
        deviation = (self.gram.diagonal(dim1=-2, dim2=-1) / self.total[:, None]).sqrt()
        floor = 1e-6 * self.mean.abs() + 1e-12
        return torch.where(deviation > floor, deviation, torch.ones_like(deviation))

    def classes(
        self,
    ) -> tuple[
        Float[Tensor, "resample class"],
        Float[Tensor, "resample class d"],
        Float[Tensor, "resample d d"],
    ]:
        """Where the targets are one-hot: rows and mean of each class, and what is left of `gram`.

        Means are those of the deviations from `mean`; what is left are sums of products of
        deviations from the class means.
        """
        count = self.middle * self.total[:, None]
        means = self.cross.mT / count[..., None]
        within = self.gram - (means * count[..., None]).mT @ means
        return count, means, within


def row_moments(
    chunks: Iterable[Chunk],
    target: Float[Tensor, "n target"],
    weight: Float[Tensor, "resample n"],
) -> RowMoments:
    """Add up rows as they come.

    Args:
        chunks: Rows and their numbers; each row once.
        target: Of all rows.
        weight: Of all rows in each resampling.

    Raises:
        DataError: If a row is not finite, or none comes.
    """
    table, cell_of = _cells(weight)
    sums: _Sums | None = None
    for x, numbers in chunks:
        for part in torch.arange(len(x)).split(_ROWS_AT_ONCE):
            rows = x[part]
            if not bool(rows.isfinite().all()):
                raise DataError(
                    "Cannot fit a probe on rows with NaN or infinity; capture them again."
                )
            index = numbers[part].cpu()
            if sums is None:
                sums = _Sums.like(rows, table.shape[1], target.shape[1])
            sums.add(rows, target[index], index, cell_of, weight)
    if sums is None:
        raise DataError("There are no rows to fit a probe on.")
    return sums.combined(table)


def _cells(
    weight: Float[Tensor, "resample n"],
) -> tuple[Float[Tensor, "resample cell"], Int[Tensor, " n"] | None]:
    """Rows weighed alike, as one cell; or, where these are too many, every resample by itself."""
    own = weight.double().cpu()
    columns, cell_of = own.unique(dim=1, return_inverse=True)
    if columns.shape[1] <= len(own):
        return columns, cell_of
    return torch.eye(len(own), dtype=torch.float64), None


class _Sums:
    """Sums by cell, of deviations from a fixed point."""

    def __init__(self, shift: Tensor, cells: int, targets: int, dtype: torch.dtype) -> None:
        d = len(shift)
        self.shift, self.dtype = shift, dtype
        self.n = shift.new_zeros(cells)
        self.x, self.t = shift.new_zeros(cells, d), shift.new_zeros(cells, targets)
        self.xx, self.xt = shift.new_zeros(cells, d, d), shift.new_zeros(cells, d, targets)

    @classmethod
    def like(cls, rows: Tensor, cells: int, targets: int) -> _Sums:
        """Room for sums of rows like these."""
        shift = rows.to(working_device(rows.device)).double().mean(0)
        dtype = torch.float64 if rows.dtype == torch.float64 else torch.float32
        return cls(shift, cells, targets, dtype)

    def add(
        self,
        rows: Tensor,
        target: Tensor,
        numbers: Tensor,
        cell_of: Tensor | None,
        weight: Tensor,
    ) -> None:
        device = self.shift.device
        x, t = rows.to(device).double() - self.shift, target.to(device).double()
        for cell in range(len(self.n)):
            if cell_of is not None:
                mine = (cell_of[numbers] == cell).to(device)
                own, weighted, weights = x[mine], t[mine], x.new_ones(int(mine.sum()))
            else:
                own, weighted, weights = x, t, weight[cell, numbers].to(device).double()
            left = own * weights[:, None]
            self.n[cell] += weights.sum()
            self.x[cell] += left.sum(0)
            self.t[cell] += weights @ weighted
            self.xx[cell] += left.T @ own
            self.xt[cell] += left.T @ weighted

    def combined(self, table: Float[Tensor, "resample cell"]) -> RowMoments:
        """Of every resampling."""
        table = table.to(self.n.device)
        n = table @ self.n
        if not bool((n > 0).all()):
            raise DataError("A fold is left without rows to fit a probe on; use fewer folds.")
        x, t = table @ self.x, table @ self.t
        xx, xt = (torch.tensordot(table, sums, dims=1) for sums in (self.xx, self.xt))
        return RowMoments(
            total=n,
            mean=self.shift + x / n[:, None],
            middle=t / n[:, None],
            gram=xx - x[:, :, None] * x[:, None] / n[:, None, None],
            cross=xt - x[:, :, None] * t[:, None] / n[:, None, None],
            dtype=self.dtype,
        )


def site_moments(
    x: Float[Tensor, "site n d"],
    target: Float[Tensor, "n target"],
    weight: Float[Tensor, "resample n"],
) -> list[RowMoments]:
    """Of each site, where all rows are at hand."""
    numbers = torch.arange(x.shape[1])
    return [row_moments([(rows, numbers)], target, weight) for rows in x]
