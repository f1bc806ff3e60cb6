"""What the calls of a Transformers model tell: positions of tokens, and where prompts end."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from affectlens.core import DataError
from affectlens.models.hooking.hf_generate import GenerateCall, current_call, runs_unannounced
from affectlens.models.step import CACHES
from affectlens.steering.positions import absolute_positions

logger = logging.getLogger(__name__)

Lengths = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass of the base model.

    Attributes:
        ids: Its tokens (or their embeddings, ``[batch, pos, d_model]``).
        positions: Absolute position of each, `PADDING` for padding where a mask says so.
        cache: Keys and values it was given, if any.
        cached: How many tokens these hold, padding included.
    """

    ids: Tensor
    positions: Int[Tensor, "batch pos"]
    cache: Any
    cached: int

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Pass:
        """Read the arguments of the base model's ``forward``."""
        ids = given.get("input_ids")
        ids = ids if ids is not None else given["inputs_embeds"]
        cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
        cached = 0 if cache is None else _length(cache, given, ids)
        return cls(ids, _positions(given, ids, cached), cache, cached)

    @property
    def columns(self) -> int:
        """Tokens per row once it is done, padding included."""
        return self.cached + self.ids.shape[1]


def _length(cache: Any, given: Mapping[str, Any], ids: Tensor) -> int:
    """How many tokens a cache holds; a state space keeps no count, so the mask has to tell."""
    try:
        return int(cache.get_seq_length())
    except ValueError:  # raised where no layer has keys
        pass
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return max(0, mask.shape[1] - ids.shape[1])
    if not cache.has_previous_state():
        return 0
    raise DataError(
        "A state-space model was called with one token more and without a mask of all before, so "
        "it is not known which token that is; generate with model.generate while it is steered."
    )


class Calls:
    """Tells from the calls of a model where prompts end.

    Args:
        hf: The model whose ``generate`` is announced (`affectlens.models.hooking.hf_generate`).
    """

    def __init__(self, hf: Any) -> None:
        self._hf = weakref.ref(hf)
        self._of_cache: weakref.WeakKeyDictionary[Any, Lengths] = weakref.WeakKeyDictionary()
        self._last = _Last()

    def prompt_lengths(self, now: Pass) -> Lengths:
        """Prompt length of every row of a pass.

        Raises:
            DataError: If it is a pass of a ``generate`` that was looked up outside.
        """
        hf = self._hf()
        call = current_call(hf)
        if call is None:
            if runs_unannounced(hf):
                raise DataError(
                    "generate was looked up before the steering block was opened, so it is not "
                    "known where its prompts end; look it up inside (model.hf.generate)."
                )
            return self._inferred(now)
        aside = now.cache is not None and now.cache in self._of_cache
        return (
            _told(call, now)
            if call.owns(now.cache, now.columns, aside=aside)
            else (self._inferred(now))
        )

    def returned(self, output: Any) -> None:
        """Note with which cache a pass came back."""
        lengths, self._last.inferred = self._last.inferred, None
        found = (getattr(output, name, None) for name in CACHES)
        cache = next((cache for cache in found if cache is not None), None)
        if lengths is not None and cache is not None:
            self._of_cache[cache] = lengths

    def _inferred(self, now: Pass) -> Lengths:
        """Without being told: single tokens after a prompt are generated, others are a prompt."""
        last, rows = self._last, len(now.positions)
        before, last.ids = last.ids, now.ids if now.cached == 0 else None
        known = last.lengths
        if now.cache is not None and now.cached > 0:
            known = self._of_cache.get(now.cache, known)
        known = known if known is not None and len(known) == rows else None
        one = now.cached > 0 and now.ids.shape[1] == 1
        if known is None or not (one or (now.cached == 0 and _extends(before, now.ids))):
            if known is not None and now.cached > 0:
                logger.warning(
                    "Several tokens at once after %d others are taken for a new prompt; pass "
                    "prompt_lengths= if they are none, or part of one.",
                    now.cached,
                )
            known = tuple((now.positions.amax(-1) + 1).clamp_min(1).tolist())
        last.lengths = last.inferred = known
        return known


class _Last(threading.local):
    """The last call of a thread that had to be inferred."""

    lengths: Lengths | None = None
    ids: Tensor | None = None
    inferred: Lengths | None = None


def _told(call: GenerateCall, now: Pass) -> Lengths:
    """Prompt lengths by what ``generate`` was given.

    Prompts end in one column. How many columns of a row are padding is seen at any later token.
    """
    if call.lengths is not None and len(call.lengths) == len(now.positions):
        return call.lengths
    if now.columns == call.columns:
        lengths = now.positions.amax(-1) + 1
    else:
        lengths = call.columns - (now.columns - 1 - now.positions[:, -1])
    found = tuple(lengths.clamp_min(1).tolist())
    if now.columns >= call.columns:
        call.lengths = found
    return found


def _extends(before: Tensor | None, ids: Tensor) -> bool:
    """Whether a call repeats the one before with one token more (generation without a cache)."""
    return (
        before is not None
        and before.shape[1] + 1 == ids.shape[1]
        and before.shape[0] == ids.shape[0]
        and torch.equal(before, ids[:, :-1])
    )


def _positions(given: Mapping[str, Any], ids: Tensor, cached: int) -> Int[Tensor, "batch pos"]:
    """Absolute position of every token of a call, -1 for padding."""
    batch, columns = ids.shape[:2]
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return absolute_positions(mask, columns).to(ids.device)
    told = given.get("position_ids")
    if isinstance(told, Tensor) and told.ndim == 2 and told.shape[1] == columns:
        return told.expand(batch, columns)
    return torch.arange(cached, cached + columns, device=ids.device).expand(batch, columns)


def repeat(values: tuple[int, ...], batch: int, what: str) -> tuple[int, ...]:
    """Give each value as many neighbouring rows as the batch has for it."""
    if batch % len(values):
        raise DataError(
            f"The batch has {batch} rows, which {len(values)} {what} do not divide; give one per "
            "row, or one for all."
        )
    return tuple(value for value in values for _ in range(batch // len(values)))
