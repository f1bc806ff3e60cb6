"""What steering does besides: suites before and after, each emotion at several doses, in pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from affectlens.core import DataError
from affectlens.core.statistics import paired_difference
from affectlens.evaluation.suites import Suite
from affectlens.evaluation.suites.base import Item
from affectlens.evaluation.text_metrics import mean_words

Cell = tuple[str, float]
"""Emotion and dose; ``("", 0.0)`` is unsteered."""

UNSTEERED: Cell = ("", 0.0)


@dataclass(frozen=True)
class Asked:
    """The items that are asked, by suite.

    Attributes:
        suites: In the order of tables.
        per_suite: At most so many items of each, the first ones; None takes all.
    """

    suites: Sequence[Suite]
    per_suite: int | None = None

    def items(self, suite: Suite) -> tuple[Item, ...]:
        """Those of one suite."""
        return suite.items[: self.per_suite]

    @property
    def every(self) -> tuple[Item, ...]:
        """Those of all suites, one after the other."""
        return tuple(item for suite in self.suites for item in self.items(suite))


@dataclass(frozen=True)
class SideEffect:
    """One suite under one emotion and dose, beside the unsteered model.

    Attributes:
        suite: Its name.
        emotion, dose: What was steered with; 1 is the dose that the pack recommends.
        share: Of replies that pass.
        unsteered: The same without steering.
        difference: ``share - unsteered``, over the same items.
        ci: 95 % interval of the difference, items resampled.
        p: Two-sided, of no difference.
        words: Mean words per reply.
        unsteered_words: The same without steering.
        n: Items.
    """

    suite: str
    emotion: str
    dose: float
    share: float
    unsteered: float
    difference: float
    ci: tuple[float, float]
    p: float
    words: float
    unsteered_words: float
    n: int


def side_effects(
    asked: Asked, replies: Mapping[Cell, Sequence[str]], *, seed: int = 0
) -> list[SideEffect]:
    """Score the replies of every emotion and dose.

    Args:
        asked: What was asked.
        replies: Emotion and dose → one reply per item of `Asked.every`; :data:`UNSTEERED` is among
            them.
        seed: Of the bootstrap.

    Raises:
        DataError: If the unsteered replies are missing, or a cell has not one reply per item.
    """
    if UNSTEERED not in replies:
        raise DataError("Side effects are measured beside unsteered replies, which are missing.")
    wanted = len(asked.every)
    for (emotion, dose), texts in replies.items():
        if len(texts) != wanted:
            raise DataError(
                f"{emotion or 'unsteered'} at {dose:g} has {len(texts)} replies to {wanted} "
                "prompts; measure again."
            )
    found: list[SideEffect] = []
    start = 0
    for suite in asked.suites:
        items = asked.items(suite)
        part = slice(start, start + len(items))
        start += len(items)
        plain = list(replies[UNSTEERED][part])
        before = np.array(suite.score(plain, items), dtype=np.float64)
        for (emotion, dose), texts in replies.items():
            if (emotion, dose) == UNSTEERED:
                continue
            steered = list(texts[part])
            after = np.array(suite.score(steered, items), dtype=np.float64)
            told = paired_difference(after, before, [item.id for item in items], random=seed)
            found.append(
                SideEffect(
                    suite=suite.name,
                    emotion=emotion,
                    dose=dose,
                    share=float(after.mean()),
                    unsteered=float(before.mean()),
                    difference=told.mean,
                    ci=(told.low, told.high),
                    p=told.p,
                    words=mean_words(steered),
                    unsteered_words=mean_words(plain),
                    n=len(items),
                )
            )
    return found
