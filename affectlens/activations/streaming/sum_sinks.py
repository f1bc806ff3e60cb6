"""Sinks that keep sums of the rows instead of the rows.

They take the place of a store behind the same forward passes: what arrives is added up on its
device in float64 and forgotten, so memory does not grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.activations.forward.plan import CapturePlan
from affectlens.activations.forward.tokenised import Ints, before
from affectlens.activations.streaming.accumulators import (
    ROWS_AT_ONCE,
    ClassMoments,
    FirstBad,
    Members,
    WeightedSums,
    working_device,
)
from affectlens.activations.streaming.top_rows import TopRows
from affectlens.core.errors import DataError
from affectlens.core.places import Site

Key = tuple[Site, str]
RowWeights = Callable[[Ints], Float[Tensor, "k n"]]
"""Weights of rows, given the numbers of the texts they come from."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RowIndex:
    """What the rows that arrive at one position belong to: items, which are texts.

    Attributes:
        items: Numbers of the items in the order in which they arrive.
        starts: Row at which each of them starts, ascending.
        corpus: Row in corpus order at which each item starts, by number.
        token: First token read of each item, by number.
        id_of: Id of the record of an item.
    """

    items: Ints
    starts: Ints
    corpus: Ints
    token: Ints
    id_of: Callable[[int], str]

    @classmethod
    def of_plan(cls, plan: CapturePlan, position: str) -> RowIndex:
        """Of one position of a plan."""
        return cls(
            items=plan.order,
            starts=plan.starts[position][plan.order],
            corpus=before(plan.counts[position]),
            token=plan.texts.spans[position][:, 0],
            id_of=lambda text: plan.texts.records[text].id,
        )

    def of_rows(self, start: int, n: int) -> tuple[Ints, Ints]:
        """Items of the rows from ``start`` on, and the numbers of these rows in corpus order."""
        rows = np.arange(start, start + n)
        place = np.searchsorted(self.starts, rows, side="right") - 1
        items = self.items[place]
        return items, self.corpus[items] + rows - self.starts[place]

    def of_corpus(self, rows: Ints) -> tuple[Ints, Ints]:
        """Items and first tokens of rows in corpus order."""
        items = np.searchsorted(self.corpus, rows, side="right") - 1
        return items, self.token[items] + rows - self.corpus[items]


def row_index(plan: CapturePlan) -> dict[str, RowIndex]:
    """Of every position of a plan."""
    return {position.name: RowIndex.of_plan(plan, position.name) for position in plan.positions}


class _Remembered(Generic[T]):
    """What was worked out for the rows of a batch, until the next batch: all sites need it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, torch.device], T] = {}

    def get(self, position: str, start: int, x: Tensor, make: Callable[[], T]) -> T:
        key = (position, start, len(x), x.device)
        if key not in self._known:
            if len(self._known) >= 16:
                self._known.clear()
            self._known[key] = make()
        return self._known[key]


class RowSink:
    """Turns what arrives into float64, watches for NaN, and leaves the rest to `take`.

    Args:
        index: Of each position.
    """

    def __init__(self, index: Mapping[str, RowIndex]) -> None:
        self.index = index
        self._bad: dict[Key, FirstBad] = {}

    def begin(self, shard: int) -> None:
        """A shard starts, which makes no difference here."""

    def write(self, site: Site, position: str, start: int, values: Tensor) -> None:
        """Take the rows from number ``start`` on, ``[n, width]``.

        Raises:
            DataError: If the device has no room for the sums.
        """
        device, key = working_device(values.device), (site, position)
        try:
            bad = self._bad.setdefault(key, FirstBad(device))
            for part in values.to(device).split(ROWS_AT_ONCE):
                x = part.double()
                mean_square = x.square().mean(1)
                bad.add(mean_square, start)
                self.take(key, start, x, mean_square)
                start += len(part)
        except torch.OutOfMemoryError as error:
            raise DataError(
                f"{device} has no room left for sums at {site.hook_name}; ask for fewer sites, "
                "classes, covariances or resamplings."
            ) from error

    def take(
        self, key: Key, start: int, x: Float[Tensor, "n width"], mean_square: Float[Tensor, " n"]
    ) -> None:
        """Add rows in float64; with them the mean of each row's squares."""
        raise NotImplementedError

    def end(self) -> None:
        """A shard is complete.

        Raises:
            DataError: If a number in it was NaN or infinite, naming site and record.
        """
        for (site, position), bad in self._bad.items():
            row = bad.row()
            if row is not None:
                index = self.index[position]
                record = index.id_of(int(index.of_rows(row, 1)[0][0]))
                raise DataError(
                    f"{site.hook_name} of record {record} holds NaN or infinity; load the model in "
                    "another dtype, or drop the record."
                )


class MomentSink(RowSink):
    """Keeps moments of classes, and the largest rows of each unit.

    Args:
        index: Of each position.
        labels: Class of each item, by position.
        n_classes: How many classes there are.
        scatter: Of each site, see `ClassMoments`.
        top_k: Rows to keep per unit.
    """

    def __init__(
        self,
        index: Mapping[str, RowIndex],
        labels: Mapping[str, Ints],
        n_classes: int,
        scatter: Mapping[Site, str],
        top_k: int,
    ) -> None:
        super().__init__(index)
        self._labels, self._n_classes, self._scatter = labels, n_classes, scatter
        self._top_k = top_k
        self._batch = _Remembered[tuple[Members, Tensor]]()
        self.sums: dict[Key, ClassMoments] = {}
        self.top: dict[Key, TopRows] = {}

    def take(self, key: Key, start: int, x: Tensor, mean_square: Tensor) -> None:
        """See `RowSink.take`."""
        (site, position), width = key, x.shape[1]
        if key not in self.sums:
            scatter = self._scatter.get(site, "none")
            self.sums[key] = ClassMoments(self._n_classes, width, x.device, scatter)
            if self._top_k:
                self.top[key] = TopRows(self._top_k, width, x.device)

        def describe() -> tuple[Members, Tensor]:
            items, rows = self.index[position].of_rows(start, len(x))
            members = Members.of(self._labels[position][items], x.device)
            return members, torch.from_numpy(rows).to(x.device)

        members, rows = self._batch.get(position, start, x, describe)
        self.sums[key].add(x, mean_square, members)
        if self._top_k:
            self.top[key].add(x, rows)


class SumSink(RowSink):
    """Keeps weighted sums.

    Args:
        index: Of each position.
        weights: Of rows, by their items.
    """

    def __init__(self, index: Mapping[str, RowIndex], weights: RowWeights) -> None:
        super().__init__(index)
        self._weights = weights
        self._batch = _Remembered[Tensor]()
        self.sums: dict[Key, WeightedSums] = {}

    def take(self, key: Key, start: int, x: Tensor, mean_square: Tensor) -> None:
        """See `RowSink.take`."""

        def weigh() -> Tensor:
            items, _ = self.index[key[1]].of_rows(start, len(x))
            return self._weights(items).to(x.device, torch.float64)

        weight = self._batch.get(key[1], start, x, weigh)
        if key not in self.sums:
            self.sums[key] = WeightedSums(len(weight), x.shape[1], x.device)
        self.sums[key].add(x, mean_square, weight)
