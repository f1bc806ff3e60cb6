"""A task's items taken apart: what stands before, what is told, and what each emotion makes of it.

Any context of an item can then be asked about any emotion: a text in one tone, how much the model
goes on in another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from affectlens.circuits.tasks.base import Task, TextTask
from affectlens.core.errors import DataError

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ids = tuple[int, ...]


def with_margin(
    margins: Float[Floats, " text"], scenarios: Sequence[str]
) -> tuple[Bool[np.ndarray, " text"], list[str]]:
    """Which texts have a margin for an emotion (the others are NaN), and their scenarios."""
    kept = ~np.isnan(margins)
    return kept, [s for s, keep in zip(scenarios, kept, strict=True) if keep]


@dataclass(frozen=True, eq=False)
class Question:
    """What is told after one context of each emotion.

    Attributes:
        contexts: Of every emotion; None where the item has none.
        told: What may follow, each once.
        weights: Of what is told in the margin of each emotion; 0 for what plays no part.
        start: Tokens that all contexts begin with: no emotion shows in them.
    """

    contexts: tuple[Ids | None, ...]
    told: tuple[Ids, ...]
    weights: Float[Floats, "emotion told"]
    start: int


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a task.

    Attributes:
        questions: Margins are sums over these; one as a rule, more if a question is put in several
            forms.
        known: Of each emotion, whether the item has a margin.
    """

    questions: tuple[Question, ...]
    known: tuple[bool, ...]


def items_of(task: Task) -> list[Item]:
    """All items of a task of continuations.

    Raises:
        DataError: If its margins are no sums of log-probabilities of continuations, or the forms
            of a question differ between the emotions.
    """
    if not isinstance(task, TextTask):
        raise DataError(
            f"The task {task.name} has no continuations, which this test compares; choose another, "
            "for example carry_over."
        )
    texts = [task.texts(emotion) for emotion in task.emotions]
    return [_item([texts[e][i] for e in range(len(texts))]) for i in range(len(task))]


def _item(rows: Sequence[Sequence[tuple[float, tuple[Ids, Ids]]]]) -> Item:
    forms = [list(dict.fromkeys(context for _, (context, _) in text)) for text in rows]
    counts = {len(own) for own in forms if own}
    if len(counts) > 1:
        raise DataError(
            "The emotions of an item are asked about in different numbers of contexts, so their "
            "contexts cannot be exchanged; choose a task where each has the same."
        )
    questions = list[Question]()
    for j in range(counts.pop() if counts else 0):
        contexts = tuple(own[j] if own else None for own in forms)
        told = dict[Ids, int]()
        for text, context in zip(rows, contexts, strict=True):
            for _, (before, after) in text:
                if before == context:
                    told.setdefault(after, len(told))
        weights = np.zeros((len(rows), len(told)))
        for e, (text, context) in enumerate(zip(rows, contexts, strict=True)):
            for weight, (before, after) in text:
                if before == context:
                    weights[e, told[after]] += weight
        given = [context for context in contexts if context is not None]
        start = _shared(given) if len(set(given)) > 1 else 0
        questions.append(Question(contexts, tuple(told), weights, start))
    return Item(tuple(questions), tuple(bool(text) for text in rows))


def _shared(texts: Sequence[Ids]) -> int:
    """How many first tokens all have in common."""
    low, high = min(texts), max(texts)  # in dictionary order, so what these share all do
    pairs = enumerate(zip(low, high, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(low), len(high)))
