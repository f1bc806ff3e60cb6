"""Which prompts are run in one pass.

A pass costs as much as its fixed part and its tokens do: prompts that share a kept beginning are
run together from where all of them still agree, though some could be continued from further on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affectlens.models.anatomy.padding import Padding
from affectlens.serving.local.prefill import Group
from affectlens.serving.local.prefix_store import PrefixStore, Shared, in_common, reusable
from affectlens.serving.local.row import Row

WHOLE = 2048
"""Most tokens of the prompts of a group, padding included."""

COMMON = 16
"""So many first tokens in common, and one prompt is run before the others."""

WORTH = 32
"""Running so many kept tokens again is cheaper than a pass more. (SmolLM2-135M in float32 on two
cores: a pass costs 45 ms, a token in it 1.1 ms.)"""


class Grouping:
    """Chooses the prompts of the next pass.

    Args:
        beginnings: What is kept.
        padding: What the model's rows do not notice.
        shares: Whether rows can be run together at all.
    """

    def __init__(self, beginnings: PrefixStore, padding: Padding, *, shares: bool) -> None:
        self._beginnings, self._padding, self._shares = beginnings, padding, shares

    def __call__(self, rows: Sequence[Row]) -> Group | None:
        """The first row, and those that are best run with it; None if there is no row."""
        if not rows:
            return None
        first, *others = rows
        if not self._shares:
            return Group((first,))
        shared = self._kept(first)
        alone = shared is None and self._padding.chunks
        if alone and any(_in_common(first, one) >= COMMON for one in others):
            return Group((first,))  # the others will find what they share with it
        start = 0 if shared is None else shared.length
        group = [first]
        for one in others:
            agreed = self._agreed(shared, start, one)
            if agreed is None:
                continue
            kept = self._kept(one)
            again = len(group) * (start - agreed) + (kept.length if kept else 0) - agreed
            if again <= WORTH and self._fits(group, one, agreed):
                group.append(one)
                start = agreed
        return Group(tuple(group), shared and Shared(shared.beginning, start))

    def _agreed(self, shared: Shared | None, start: int, row: Row) -> int | None:
        """From where a row could be run with others; None if it shares nothing with them."""
        if shared is None:
            return 0
        known = shared.beginning.known(reusable(row.asked.prompt, row.asked.untouched))
        return min(start, known) or None

    def _fits(self, group: Sequence[Row], row: Row, start: int) -> bool:
        own, length = (len(one.asked.prompt) - start for one in (group[0], row))
        equal = length == own or start == 0 or self._padding.between
        alike = length <= 2 * own + 32 and own <= 2 * length + 32
        longest = max(len(one.asked.prompt) - start for one in (*group, row))
        return equal and alike and (len(group) + 1) * longest <= WHOLE

    def _kept(self, row: Row) -> Shared | None:
        return self._beginnings.find(row.asked.prompt, row.asked.untouched)


def _in_common(first: Row, second: Row) -> int:
    """How many first tokens two prompts share that steering leaves alone."""
    texts = [
        np.array(row.asked.prompt[: row.asked.untouched], dtype=np.int64) for row in (first, second)
    ]
    return in_common(*texts)
