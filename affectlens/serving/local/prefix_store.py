"""Beginnings of prompts whose keys and values are kept, so that nobody computes them again.

Only what steering leaves alone is kept: a template with its system prompt, a prompt that is steered
in six ways, the earlier turns of a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = 8
"""Beginnings are used in multiples of so many tokens, so that different prompts use the same."""

KeysAndValues = tuple[Float[Tensor, "kv_head pos d"], Float[Tensor, "kv_head pos d"]]


@dataclass(frozen=True, eq=False)
class Beginning:
    """A kept beginning.

    Attributes:
        ids: Its tokens.
        layers: Keys and values of every layer.
    """

    ids: NDArray[np.int64]
    layers: tuple[KeysAndValues, ...]

    def known(self, ids: NDArray[np.int64]) -> int:
        """How many first tokens of a text need not be run again."""
        return in_common(ids, self.ids) // STEP * STEP


@dataclass(frozen=True, eq=False)
class Shared:
    """As much of a beginning as a prompt shares.

    Attributes:
        beginning: Which.
        length: How many tokens of it.
    """

    beginning: Beginning
    length: int


def reusable(prompt: Sequence[int], untouched: int) -> NDArray[np.int64]:
    """What of a prompt may be taken from a beginning; the last token is never part of it.

    Args:
        prompt: Token ids.
        untouched: How many of them are computed as without steering.
    """
    return np.array(prompt[: min(untouched, len(prompt) - 1)], dtype=np.int64)


def in_common(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """How many first tokens two texts share."""
    n = min(len(first), len(second))
    differs = first[:n] != second[:n]
    return int(differs.argmax()) if differs.any() else n


class PrefixStore:
    """Keeps the beginnings that were used last.

    Args:
        tokens: Most tokens to keep, of all of them.
    """

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: list[Beginning] = []  # the one used last at the end

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt: Sequence[int], untouched: int) -> Shared | None:
        """The longest beginning of a prompt that is kept; the last token is never part of it.

        Args:
            prompt: Token ids.
            untouched: How many of them are computed as without steering.
        """
        ids = reusable(prompt, untouched)
        lengths = [one.known(ids) for one in self._kept]
        best = max(lengths, default=0)
        if best == 0:
            return None
        found = self._kept[lengths.index(best)]
        self._use(found)
        return Shared(found, best)

    def put(self, prompt: Sequence[int], layers: Sequence[KeysAndValues]) -> None:
        """Keep a beginning; keys and values are copied.

        Args:
            prompt: Its tokens.
            layers: Keys and values of these tokens.
        """
        ids = np.array(prompt, dtype=np.int64)
        if len(ids) < STEP or len(ids) > self._room:
            return
        shared = [in_common(ids, one.ids) for one in self._kept]
        if any(len(ids) - n < STEP for n in shared):
            return  # as good as kept
        # What this one continues is not needed any more.
        self._kept = [one for one, n in zip(self._kept, shared, strict=True) if n < len(one.ids)]
        copied = tuple((keys.clone(), values.clone()) for keys, values in layers)
        self._kept.append(Beginning(ids, copied))
        while sum(len(one.ids) for one in self._kept) > self._room:
            self._kept.pop(0)

    def _use(self, found: Beginning) -> None:
        self._kept.remove(found)
        self._kept.append(found)
