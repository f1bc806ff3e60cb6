"""What a task says when the stream is pushed along a direction, or has a subspace erased.

A margin is the weighted sum of log-probabilities of an item's continuations, as the task's own, but
in any of the item's contexts: in the emotion's own for what erasure takes away, in another's for
what a push brings. What it would be without the emotion is the same under every condition, so it
cancels in differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.evidence.items import Item, items_of
from affectlens.circuits.evidence.measure import other_contexts
from affectlens.circuits.interventions import Change, Intervention, add, erase, intervening
from affectlens.core.places import Site, WritePoint
from affectlens.geometry.leace import Eraser
from affectlens.models.generation.likelihood import continuation_nll
from affectlens.models.sinks import RATIO

if TYPE_CHECKING:
    from affectlens.circuits.tasks.base import Task
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
_Rows = list[tuple[int, float, tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True, eq=False)
class Asked:
    """The items of a task, each in one context, asked about one emotion.

    Attributes:
        rows: Item, weight, context and continuation.
        items: Which items have any.
        scenarios: Of these.
    """

    rows: _Rows
    items: tuple[int, ...]
    scenarios: tuple[str, ...]

    @classmethod
    def of(cls, task: Task, emotion: int, *, own: bool) -> Asked:
        """In the emotion's own context, or in another's, each tone in its turn."""
        items = items_of(task)
        contexts = [emotion] * len(items) if own else other_contexts(items, emotion)
        rows: _Rows = []
        for i, (item, context) in enumerate(zip(items, contexts, strict=True)):
            rows += _rows(i, item, context, emotion)
        having = tuple(sorted({row[0] for row in rows}))
        return cls(rows, having, tuple(task.scenarios[i] for i in having))

    def margins(
        self, model: LanguageModel, change: Intervention | None = None
    ) -> Float[Floats, " item"]:
        """Of every item that has one, under a change or without."""
        with nullcontext() if change is None else intervening(model, [change]):
            nll = continuation_nll(model, [r[2] for r in self.rows], [r[3] for r in self.rows])
        found = dict.fromkeys(self.items, 0.0)
        for (item, weight, _, _), value in zip(self.rows, nll.tolist(), strict=True):
            found[item] -= weight * value
        return np.array([found[item] for item in self.items])


def _rows(i: int, item: Item, context: int | None, emotion: int) -> _Rows:
    if context is None or not item.known[emotion]:
        return []
    rows: _Rows = []
    for question in item.questions:
        before = question.contexts[context]
        if before is None:
            return []
        weights = question.weights[emotion].tolist()
        rows += [(i, w, before, told) for w, told in zip(weights, question.told, strict=True) if w]
    return rows


@dataclass(frozen=True, eq=False)
class Stream:
    """The residual stream after one block, as rows of a store show it.

    Attributes:
        site: The place.
        longest: Tokens longer than this are attention sinks, which are left as they are: whatever
            a direction says of them is not about the text.
    """

    site: Site
    longest: float

    @classmethod
    def of(cls, site: Site, rows: Float[Tensor, "n d"]) -> Stream:
        """Of rows of that site, sinks not among them."""
        return cls(site, RATIO * float(rows.norm(dim=-1).median()))

    def pushed(self, vector: Float[Tensor, " d"]) -> Intervention:
        """A vector added to every token."""
        return self._at(add(vector))

    def erased(self, eraser: Eraser) -> Intervention:
        """A subspace taken out of every token."""
        return self._at(erase(eraser))

    def _at(self, change: Change) -> Intervention:
        def spared(value: Tensor) -> Tensor:
            sink = value.norm(dim=-1, keepdim=True) > self.longest
            return torch.where(sink, value, change(value))

        return Intervention(WritePoint(self.site.layer, "resid_post"), spared)


def slope(
    asked: Asked,
    model: LanguageModel,
    stream: Stream,
    vector: Float[Tensor, " d"],
    doses: Sequence[float],
) -> Float[Floats, " item"]:
    """Of each item the least-squares slope of its margin against dose, in nats per dose."""
    found = np.stack(
        [asked.margins(model, stream.pushed(dose * vector) if dose else None) for dose in doses]
    )
    x = np.asarray(doses) - np.mean(doses)
    return (x[:, None] * found).sum(0) / (x @ x)
