"""From logits to the next token: penalties, bans, greedy choice and sampling.

Every function keeps the meaning of Transformers' logits processor of that name, for rows without
padding; rows that are padded give the same tokens as alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core import DataError

_BLOCK = 256


@dataclass(frozen=True)
class GenerationSettings:
    """How replies are generated. One object serves all arms of a comparison.

    Attributes:
        max_new_tokens: Longest reply, in tokens.
        min_new_tokens: No end of reply before so many tokens.
        repetition_penalty: Logits of tokens that occur in prompt or reply are divided by this if
            positive, multiplied if negative; 1 is off (arXiv 1909.05858). The default here is
            1.1, that of ``hf.generate`` is 1.0: small models loop without it. Give the same value
            on both sides when the two are compared.
        no_repeat_ngram: No n-gram of this length twice in prompt and reply; 0 is off.
        temperature: 0 chooses the likeliest token; otherwise logits are divided by it.
        top_p: Sample among the likeliest tokens that hold this share of the probability.
        seed: Of sampling. A row's tokens do not depend on the batch it is in.
    """

    max_new_tokens: int = 40
    min_new_tokens: int = 0
    repetition_penalty: float = 1.1
    no_repeat_ngram: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, lowest in (("max_new_tokens", 1), ("min_new_tokens", 0), ("no_repeat_ngram", 0)):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise DataError(f"{name} must be a whole number from {lowest}, not {value!r}.")
        if self.min_new_tokens > self.max_new_tokens:
            raise DataError(
                f"min_new_tokens ({self.min_new_tokens}) must not exceed max_new_tokens "
                f"({self.max_new_tokens})."
            )
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise DataError(f"repetition_penalty must be above 0, not {self.repetition_penalty!r}.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise DataError(f"temperature must be 0 or more, not {self.temperature!r}.")
        if not 0 < self.top_p <= 1:
            raise DataError(f"top_p must be above 0 and at most 1, not {self.top_p!r}.")


def penalise_repetition(
    logits: Float[Tensor, "batch vocab"], seen: Int[Tensor, "batch pos"], penalty: float
) -> None:
    """Divide positive and multiply negative logits of seen tokens by the penalty, in place.

    Args:
        logits: Changed in place.
        seen: Tokens of prompt and reply. A token may occur often; it counts once.
        penalty: 1 is off.
    """
    if penalty == 1:
        return
    picked = logits.gather(1, seen)
    logits.scatter_(1, seen, torch.where(picked < 0, picked * penalty, picked / penalty))


class NgramBan:
    """Which tokens would complete an n-gram that a row already holds."""

    def __init__(self, rows: Sequence[Sequence[int]], size: int) -> None:
        self.size = size
        self._texts = [list(row) for row in rows]
        self._next: list[dict[tuple[int, ...], list[int]]] = [{} for _ in rows]
        for row, text in enumerate(self._texts):
            for end in range(size, len(text) + 1):
                self._learn(row, text[end - size : end])

    def _learn(self, row: int, ngram: Sequence[int]) -> None:
        self._next[row].setdefault(tuple(ngram[:-1]), []).append(ngram[-1])

    def append(self, row: int, token: int) -> None:
        """Add a generated token."""
        text = self._texts[row]
        text.append(token)
        if len(text) >= self.size:
            self._learn(row, text[-self.size :])

    def banned(self, row: int) -> list[int]:
        """Tokens that must not come next."""
        text = self._texts[row]
        start = len(text) + 1 - self.size
        return self._next[row].get(tuple(text[start:]), []) if start >= 0 else []


def likeliest(logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
    """Index of the largest logit, the first one on ties.

    PyTorch's ``argmax`` walks a row value by value on a CPU; maxima of blocks are vectorised.
    """
    batch, vocab = logits.shape
    whole = vocab - vocab % _BLOCK
    if logits.device.type != "cpu" or whole < 4 * _BLOCK:
        return logits.argmax(-1)
    blocks = logits[:, :whole].unflatten(1, (-1, _BLOCK))
    best = blocks.amax(-1).argmax(-1)
    inside = blocks[torch.arange(batch), best].argmax(-1)
    winner = best * _BLOCK + inside
    if whole == vocab:
        return winner
    tail = logits[:, whole:].argmax(-1) + whole
    rows = torch.arange(batch)
    return torch.where(logits[rows, tail] > logits[rows, winner], tail, winner)


def sample(
    logits: Float[Tensor, "batch vocab"],
    uniform: Float[Tensor, " batch"],
    temperature: float | Float[Tensor, "batch 1"],
    top_p: float | Float[Tensor, "batch 1"],
) -> Int[Tensor, " batch"]:
    """Draw tokens by inverting the cumulative distribution at given points.

    Args:
        logits: Of the next token.
        uniform: One number in [0, 1) per row; it alone decides what is drawn.
        temperature: Above 0; one for all rows, or one each.
        top_p: Only the likeliest tokens whose predecessors hold less than this are kept.
    """
    ordered, index = (logits / temperature).softmax(-1).sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, 0.0)
    cumulative = kept.cumsum(-1)
    target = uniform[:, None].to(cumulative) * cumulative[:, -1:]
    # Rounding must not lead past the last token that was kept.
    last = ((before < top_p).sum(-1, keepdim=True) - 1).clamp_min(0)  # none of what is not finite
    drawn = torch.searchsorted(cumulative, target, right=True).minimum(last)
    return index.gather(1, drawn)[:, 0]
