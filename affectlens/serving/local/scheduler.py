"""Which rows are run next: continuous batching, a decoding step at a time.

A turn runs a part of a prompt that waits, if one does, and then the newest token of every row. So
rows come and go at any step, and a long prompt holds nobody up for long.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.core import AffectLensError, ModelError
from affectlens.models.generation.kv_cache import growing_cache
from affectlens.serving.local.batches import Batch, OneBatch, OneByOne
from affectlens.serving.local.choosing import Chooser
from affectlens.serving.local.grouping import WHOLE, Grouping
from affectlens.serving.local.limits import EngineLimits
from affectlens.serving.local.prefill import Group, Prefill
from affectlens.serving.local.prefix_store import PrefixStore
from affectlens.serving.local.row import Row
from affectlens.serving.local.running_cache import plain_cache
from affectlens.serving.local.sharing import rows_can_share
from affectlens.serving.local.steered_passes import Passed, SteeredPasses

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

PART = 256
"""Tokens of a prompt that are run in a turn while others write."""


class Scheduler:
    """Writes replies. All calls come from one thread.

    Attributes:
        shares: Whether rows are written in one pass; if not, each is written in its own.
        generated: Tokens so far.
        steps: Decoding steps so far.

    Args:
        model: The model.
        limits: What is done at once.
    """

    def __init__(self, model: LanguageModel, limits: EngineLimits) -> None:
        self._model, self._limits = model, limits
        longest = limits.longest(model.context_length)
        self.shares = rows_can_share(model, longest)
        if not self.shares:
            logger.warning(
                "Rows of %s cannot be computed together without changing each other, so replies "
                "are written side by side but each in passes of its own: right, but slower.",
                model.name,
            )
        self._padding = model.padding.upto(longest)
        self._room = max(1, limits.cache_bytes // _bytes_per_token(model))
        self.generated = self.steps = 0
        self.waiting: deque[Row] = deque()
        self._choose = Chooser()
        self._begin()

    def _begin(self, steered_tokens: int = 0) -> None:
        model, limits = self._model, self._limits
        most = max(WHOLE, limits.longest(model.context_length), limits.rows)
        self.passes = SteeredPasses(model, limits.rows, most)
        self.passes.steered_tokens = steered_tokens
        self._batch: Batch = (OneBatch if self.shares else OneByOne)(model, self.passes)
        self._prefill: Prefill | None = None
        self._beginnings = PrefixStore(self._room // 8 if self._padding.chunks else 0)
        self._grouping = Grouping(self._beginnings, self._padding, shares=self.shares)

    @property
    def running(self) -> list[Row]:
        """Rows that have a place."""
        prefill = self._prefill  # others ask, too
        return list(dict.fromkeys([*self._batch.rows, *(prefill.rows if prefill else ())]))

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self._prefill or self._batch.rows)

    def add(self, row: Row) -> None:
        """Take a row in; it is begun when there is a place."""
        self.waiting.append(row)

    def turn(self) -> None:
        """Do the next bit of work."""
        self._drop_cancelled()
        if self._prefill is None and self.waiting:
            self._admit()
        if self._prefill is not None:
            self._run_prompts(self._prefill)
        if self._batch.rows:
            self.steps += 1
            self._accept(self._batch.step(), list(self._batch.rows))
            self._end([row for row in self._batch.rows if row.over])

    def give_up(self, error: Exception) -> None:
        """Fail everybody, and begin anew."""
        rows = [*self.running, *self.waiting]
        self.waiting.clear()
        self.passes.close()
        self._begin(self.passes.steered_tokens)
        for row in rows:
            row.fail(error)

    def close(self) -> None:
        """Leave the model as it was."""
        self.passes.close()

    def _drop_cancelled(self) -> None:
        for row in (*self.waiting, *self._batch.rows):
            row.over |= row.cancelled
        if any(row.over for row in self.waiting):
            self.waiting = deque(row for row in self.waiting if not row.over)
        self._end([row for row in self._batch.rows if row.over])

    def _end(self, gone: Sequence[Row]) -> None:
        if gone:
            self._batch.leave(gone)
        for row in gone:
            self.passes.remove(row.name)

    # Beginning.

    def _admit(self) -> None:
        group = self._grouping(self._fitting())
        if group is None:
            return
        ready: list[Row] = []
        for row in group.rows:
            try:
                self.passes.add(row.name, row.asked.steered, len(row.asked.prompt))
                ready.append(row)
            except AffectLensError as error:
                self.waiting.remove(row)
                row.fail(error)
        if not ready:
            return
        group = Group(tuple(ready), group.shared)
        if self.shares:
            longest = max(len(row.asked.prompt) for row in ready)
            cache = plain_cache(self._model.hf, longest)
        else:  # it stays the row's own
            cache = growing_cache(self._model.hf, ready[0].asked.longest)
        self._prefill = Prefill(self._model, self.passes, group, cache)
        for row in ready:  # only now: whoever waits or runs is told if something fails
            self.waiting.remove(row)

    def _fitting(self) -> list[Row]:
        """Rows that may begin now, in the order in which they came."""
        running = self._batch.rows
        longest = max((row.asked.longest for row in running), default=0)
        found: list[Row] = []
        for row in self.waiting:
            rows = len(running) + len(found) + 1
            longest = max(longest, row.asked.longest)
            if rows > self._limits.rows or (rows > 1 and rows * longest > self._room):
                break  # nobody overtakes: the longest would wait for ever
            found.append(row)
        return found

    def _run_prompts(self, prefill: Prefill) -> None:
        whole = not self._padding.chunks or not self.shares
        part = 10**9 if whole else (PART if self._batch.rows else WHOLE)
        prefill.advance(part)
        if not prefill.done:
            return
        assert prefill.passed is not None
        if self.shares:
            for i, row in enumerate(prefill.rows):
                length = row.asked.untouched
                self._beginnings.put(row.asked.prompt[:length], prefill.keys_and_values(i, length))
        self._accept(prefill.passed, prefill.rows)
        for i, row in enumerate(prefill.rows):
            if row.over or row.cancelled:
                row.over = True
                self.passes.remove(row.name)
            else:
                self._batch.join(prefill, i)
        self._prefill = None

    # Going on.

    def _accept(self, passed: Passed, rows: Sequence[Row]) -> None:
        for row, token in zip(rows, self._choose(passed.logits, rows), strict=True):
            if token is None:
                row.fail(
                    ModelError(
                        "The model's logits are not finite; if the reply is steered, lower the "
                        "strength, else load the model as float32."
                    )
                )
            elif not row.over:
                self.generated += 1
                row.accept(token, passed.scores.get(row.name))


def _bytes_per_token(model: LanguageModel) -> int:
    anatomy = model.anatomy
    keys = 2 * anatomy.n_layers * anatomy.n_kv_heads * anatomy.d_head
    return (keys or anatomy.d_model) * model.dtype.itemsize
