"""What a task is: a number per item and emotion that a model gives by what it finds likely.

A circuit is tested on tasks and ranked by them. What asks for a task (`ablate`,
`attribution_patching`) takes any that does what `Task` says; `TextTask` does all of it for tasks
whose margins are weighted sums of log-probabilities of continuations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.models.generation.likelihood import continuation_nll, whole_nll

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a context and of what follows it."""
Text = tuple[tuple[float, Row], ...]
"""Rows and their weights in a margin; empty where an item has nothing to say of an emotion."""


class Task(Protocol):
    """A margin per item and emotion: positive where the model does what the item's tone asks.

    Whatever changes the model at the time (`intervening`, steering, hooks of one's own) counts.
    """

    @property
    def name(self) -> str:
        """As the table of tasks has it; goes into what is made with the task."""
        ...

    @property
    def emotions(self) -> tuple[str, ...]:
        """Order of the columns of margins."""
        ...

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Of every item: what is drawn as a whole when intervals are made."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all that the margins depend on, the model apart."""
        ...

    def __len__(self) -> int:
        """How many items."""
        ...

    def first(self, items: int) -> Self:
        """The task on its first items only."""
        ...

    def centre(self, model: LanguageModel) -> Float[Floats, "item emotion"]:
        """What is taken away from each margin: how likely it would be without the item's tone.

        Measured once on the model as it is and given to `margins`, it lets a changed model be
        measured by the contexts of one emotion alone.
        """
        ...

    def margins(
        self,
        model: LanguageModel,
        emotions: Sequence[str] | None = None,
        centre: Float[Floats, "item emotion"] | None = None,
    ) -> Float[Floats, "item emotion"]:
        """The margins.

        Args:
            model: The one the task was tokenised for.
            emotions: Only these columns, the others are NaN; default: all.
            centre: Of `centre`; default: that of the model as it now is.

        Returns:
            NaN where an item has nothing to say of an emotion.
        """
        ...

    def texts(self, emotion: str) -> tuple[Text, ...]:
        """Of each item the rows that an emotion's margin is made of, and their weights.

        Raises:
            DataError: If the task lacks the emotion, or no item has rows for it.
        """
        ...

    def objective(
        self, model: LanguageModel, emotion: str, rows: Sequence[tuple[float, Row]]
    ) -> Float[Tensor, ""]:
        """The part of an item's margin that these of its `texts` make, with gradients.

        Its centre is a constant and left out. The rows run as one batch, padded on the right: ask
        ``model.padding`` first whether the model bears that.
        """
        ...


class TextTask(ABC):
    """A task of continuations: ``m = Σ w · log p(told | context) - centre``, nats per token.

    ``log p`` is the mean over the tokens told. A kind of task says which rows there are.
    """

    name: str
    remedy: str = "give more texts"
    emotions: tuple[str, ...]
    scenarios: tuple[str, ...]

    @abstractmethod
    def weighted(self, item: int, emotion: int) -> Text:
        """The rows of one item in the context of one emotion."""

    @abstractmethod
    def constants(self, item: int, emotion: int) -> Text:
        """The rows whose sum is the item's centre."""

    def __len__(self) -> int:
        return len(self.scenarios)

    def centre(self, model: LanguageModel) -> Float[Floats, "item emotion"]:
        """What the same continuations get without the item's tone; see `Task.centre`."""
        return _sums(model, [self._table(self.constants, range(len(self.emotions)))])[0]

    def margins(
        self,
        model: LanguageModel,
        emotions: Sequence[str] | None = None,
        centre: Float[Floats, "item emotion"] | None = None,
    ) -> Float[Floats, "item emotion"]:
        """See `Task.margins`."""
        wanted = [self._column(emotion) for emotion in emotions or self.emotions]
        tables = [self._table(self.weighted, wanted)]
        if centre is None:
            tables.append(self._table(self.constants, wanted))
        sums = _sums(model, tables)
        return sums[0] - (sums[1] if centre is None else centre)

    def texts(self, emotion: str) -> tuple[Text, ...]:
        """See `Task.texts`."""
        column = self._column(emotion)
        found = tuple(self.weighted(item, column) for item in range(len(self)))
        if not any(found):
            raise DataError(
                f"No item of the task {self.name} has a margin for {emotion}; {self.remedy}."
            )
        return found

    def objective(
        self, model: LanguageModel, emotion: str, rows: Sequence[tuple[float, Row]]
    ) -> Float[Tensor, ""]:
        """See `Task.objective`; every emotion's margin is the same sum of its rows."""
        self._column(emotion)
        nll = whole_nll(model, [p for _, (p, _) in rows], [t for _, (_, t) in rows])
        return -(torch.tensor([weight for weight, _ in rows]) * nll).sum()

    def _column(self, emotion: str) -> int:
        if emotion not in self.emotions:
            raise DataError(
                f"The task has no texts for {emotion}; it has {', '.join(self.emotions)}."
            )
        return self.emotions.index(emotion)

    def _table(
        self, rows: Callable[[int, int], Text], emotions: Iterable[int]
    ) -> dict[tuple[int, int], Text]:
        """By place; every item has a place, whatever its rows."""
        columns = set(emotions)
        width = range(len(self.emotions))
        return {
            (item, e): rows(item, e) if e in columns else ()
            for item in range(len(self))
            for e in width
        }


@dataclass(frozen=True)
class TaskKind:
    """A row of the table of tasks.

    Attributes:
        name: What `affectlens list tasks` shows, and the command line takes.
        help: One line.
        corpus: The name of the texts it is for.
        make: ``make(model, corpus, emotions, **options)``; emotions as of the circuit.
        options: Names of the options that it takes.
    """

    name: str
    help: str
    corpus: str
    make: Callable[..., Task]
    options: tuple[str, ...] = ()


def _sums(
    model: LanguageModel, tables: Sequence[dict[tuple[int, int], Text]]
) -> list[Float[Floats, "item emotion"]]:
    """Weighted sums of log-probabilities by place, NaN where there are no rows; equal rows once."""
    number: dict[Row, int] = {}
    for table in tables:
        for text in table.values():
            for _, row in text:
                number.setdefault(row, len(number))
    told = np.empty(0)
    if number:
        told = -continuation_nll(model, [p for p, _ in number], [t for _, t in number])
    found = list[Floats]()
    for table in tables:
        shape = tuple(1 + max(place[axis] for place in table) for axis in (0, 1))
        sums = np.full(shape, np.nan)
        for place, text in table.items():
            if text:
                sums[place] = sum(weight * told[number[row]] for weight, row in text)
        found.append(sums)
    return found
