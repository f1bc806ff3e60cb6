"""Rows that are being written: all of them in one pass, or each in its own."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from affectlens.serving.local.prefill import Prefill
from affectlens.serving.local.row import Row
from affectlens.serving.local.running_cache import RunningCache
from affectlens.serving.local.steered_passes import Passed, Span, SteeredPasses

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


class Batch(Protocol):
    """Rows that are being written.

    Attributes:
        rows: They, in the order of what `step` gives.
    """

    rows: list[Row]

    def join(self, prefill: Prefill, index: int) -> None:
        """Take in a row whose prompt has been run."""
        ...

    def leave(self, gone: Collection[Row]) -> None:
        """Drop rows."""
        ...

    def step(self) -> Passed:
        """Run the newest token of every row."""
        ...


class OneBatch:
    """All rows in one pass; they may join and leave between any two.

    Args:
        model: One whose rows do not notice each other.
        passes: Runs it.
    """

    def __init__(self, model: LanguageModel, passes: SteeredPasses) -> None:
        self.rows: list[Row] = []
        self._device, self._passes = model.device, passes
        self._cache = RunningCache(model.hf)

    def join(self, prefill: Prefill, index: int) -> None:
        """See `Batch`."""
        self._cache.join(prefill.keys_and_values(index))
        self.rows.append(prefill.rows[index])

    def leave(self, gone: Collection[Row]) -> None:
        """See `Batch`."""
        places = [i for i, row in enumerate(self.rows) if row in gone]
        if places:
            self.rows = [self.rows[i] for i in self._cache.leave(places)]

    def step(self) -> Passed:
        """See `Batch`."""
        mask = self._cache.begin_step()
        ids = torch.tensor([[row.reply[-1]] for row in self.rows], device=self._device)
        passed = self._passes(_newest(self.rows, ids), ids, mask, self._cache.cache)
        self._cache.end_step()
        return passed


class OneByOne:
    """Every row in a pass and a cache of its own, for models whose rows notice each other.

    Args:
        model: Any that generates with a cache.
        passes: Runs it.
    """

    def __init__(self, model: LanguageModel, passes: SteeredPasses) -> None:
        self.rows: list[Row] = []
        self._device, self._passes = model.device, passes
        self._caches: dict[str, Any] = {}

    def join(self, prefill: Prefill, index: int) -> None:
        """See `Batch`."""
        row = prefill.rows[index]
        self._caches[row.name] = prefill.cache
        self.rows.append(row)

    def leave(self, gone: Collection[Row]) -> None:
        """See `Batch`."""
        self.rows = [row for row in self.rows if row not in gone]
        for row in gone:
            self._caches.pop(row.name, None)

    def step(self) -> Passed:
        """See `Batch`."""
        passed = [self._alone(row) for row in self.rows]
        scores = {name: found for one in passed for name, found in one.scores.items()}
        return Passed(torch.cat([one.logits for one in passed]), scores)

    def _alone(self, row: Row) -> Passed:
        ids = torch.tensor([[row.reply[-1]]], device=self._device)
        mask = torch.ones((1, row.length), dtype=torch.long, device=self._device)
        return self._passes(_newest([row], ids), ids, mask, self._caches[row.name])


def _newest(rows: list[Row], ids: torch.Tensor) -> Span:
    before = np.array([row.length - 1 for row in rows], dtype=np.int64)
    return Span(tuple(row.name for row in rows), torch.ones_like(ids, dtype=torch.bool), before)
