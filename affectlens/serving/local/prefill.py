"""Running prompts: several at once, in parts between which others go on writing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from affectlens.serving.local.prefix_store import KeysAndValues, Shared
from affectlens.serving.local.row import Row
from affectlens.serving.local.steered_passes import Passed, Span, SteeredPasses

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class Group:
    """Prompts that are run together.

    Attributes:
        rows: Whose.
        shared: A beginning that all of them have and that need not be run.
    """

    rows: tuple[Row, ...]
    shared: Shared | None = None


class Prefill:
    """Prompts that are being run.

    Attributes:
        rows: Whose.
        cache: Keys and values of their tokens, the shared beginning first, then padding.
        passed: Of the last part; complete once `done`.

    Args:
        model: The model.
        passes: Runs it.
        group: What to run.
        cache: An empty one.
    """

    def __init__(
        self, model: LanguageModel, passes: SteeredPasses, group: Group, cache: Any
    ) -> None:
        self.rows, self.cache = group.rows, cache
        self.passed: Passed | None = None
        self._passes = passes
        self._start = 0 if group.shared is None else group.shared.length
        rest = [row.asked.prompt[self._start :] for row in self.rows]
        self._ids, self._mask = model.encode_batch(rest, "left")
        self._pads = [self._ids.shape[1] - len(ids) for ids in rest]
        self._at = 0
        if group.shared is not None:
            self._recall(group.shared)
            known = self._mask.new_ones((len(self.rows), self._start))
            self._mask = torch.cat([known, self._mask], dim=1)

    @property
    def done(self) -> bool:
        """Whether all is run."""
        return self._at == self._ids.shape[1]

    def advance(self, tokens: int) -> None:
        """Run the next part.

        Args:
            tokens: About how many, padding included.
        """
        end = min(self._ids.shape[1], self._at + max(1, tokens // len(self.rows)))
        columns = slice(self._start + self._at, self._start + end)
        before = self._mask[:, : columns.start].sum(-1).cpu().numpy()
        span = Span(
            tuple(row.name for row in self.rows),
            self._mask[:, columns] > 0,
            before.astype(np.int64),
        )
        ids, mask = self._ids[:, self._at : end], self._mask[:, : columns.stop]
        self.passed = self._passes(span, ids, mask, self.cache)
        self._at = end

    def keys_and_values(self, row: int, length: int | None = None) -> list[KeysAndValues]:
        """Of every layer, those of a row's tokens, without padding.

        Args:
            row: Which.
            length: Only so many first tokens.
        """
        pad = self._pads[row]

        def own(values: Tensor) -> Tensor:
            known, rest = values[row, :, : self._start], values[row, :, self._start + pad :]
            return torch.cat([known, rest], dim=1)[:, :length]

        return [(own(layer.keys), own(layer.values)) for layer in self.cache.layers]

    def _recall(self, shared: Shared) -> None:
        def repeated(values: Tensor) -> Tensor:
            return values[None, :, : shared.length].expand(len(self.rows), -1, -1, -1)

        for layer, (keys, values) in zip(self.cache.layers, shared.beginning.layers, strict=True):
            layer.update(repeated(keys), repeated(values))
