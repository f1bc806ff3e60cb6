"""What the calls of a Transformers model tell: positions of tokens, and where prompts end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from affectlens.core import DataError
from affectlens.steering.positions import absolute_positions

logger = logging.getLogger(__name__)


class Calls:
    """Tells from the calls of a model where prompts end."""

    def __init__(self) -> None:
        self.lengths: tuple[int, ...] | None = None
        self.ids: Tensor | None = None

    def prompt_lengths(
        self, ids: Tensor, positions: Int[Tensor, "batch pos"], cached: int
    ) -> tuple[int, ...]:
        """Prompt length of every row, given what is passed now."""
        before, self.ids = self.ids, ids if cached == 0 else None
        known = self.lengths is not None and len(self.lengths) == len(positions)
        if known and (cached > 0 and ids.shape[1] == 1):
            return cast("tuple[int, ...]", self.lengths)
        if known and cached == 0 and _extends(before, ids):
            return cast("tuple[int, ...]", self.lengths)
        if known and cached > 0:
            logger.info("A prompt came in several calls; pass prompt_lengths= if it is one prompt.")
        self.lengths = tuple((positions.amax(-1) + 1).clamp_min(1).tolist())
        return self.lengths


def _extends(before: Tensor | None, ids: Tensor) -> bool:
    """Whether a call repeats the one before with one token more (generation without a cache)."""
    return (
        before is not None
        and before.shape[1] + 1 == ids.shape[1]
        and before.shape[0] == ids.shape[0]
        and torch.equal(before, ids[:, :-1])
    )


def cached_tokens(given: Mapping[str, Any]) -> int:
    """How many tokens the cache holds."""
    cache = given.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())


def call_positions(given: Mapping[str, Any], ids: Tensor) -> Int[Tensor, "batch pos"]:
    """Absolute position of every token of a call, -1 for padding."""
    batch, columns = ids.shape[:2]
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return absolute_positions(mask, columns).to(ids.device)
    told = given.get("position_ids")
    if isinstance(told, Tensor) and told.ndim == 2 and told.shape[1] == columns:
        return told.expand(batch, columns)
    cached = cached_tokens(given)
    return torch.arange(cached, cached + columns, device=ids.device).expand(batch, columns)


def repeat(values: tuple[int, ...], batch: int, what: str) -> tuple[int, ...]:
    """Give each value as many neighbouring rows as the batch has for it."""
    if batch % len(values):
        raise DataError(
            f"The batch has {batch} rows, which {len(values)} {what} do not divide; give one per "
            "row, or one for all."
        )
    return tuple(value for value in values for _ in range(batch // len(values)))
