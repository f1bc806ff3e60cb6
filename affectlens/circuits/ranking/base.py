"""What a strategy is: from a model, texts and a budget to a circuit's units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from affectlens.core.errors import DataError
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.attribution.gradients import GradientSettings
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel


@dataclass(frozen=True, eq=False)
class Search:
    """All that a strategy may look at.

    Attributes:
        model: The model.
        circuit: Of `find_circuit`: contributions, influence, and the differences that every
            strategy's circuit keeps.
        task: Texts to rank by; test on others. None for a strategy that reads none.
        means: What takes a unit's place: of texts of the same kind. Likewise.
        neurons, heads: How many units an emotion gets.
        validation: Texts to choose by, where a strategy does; None: the task's.
        seed: Of all that is drawn.
    """

    model: LanguageModel
    circuit: Circuit
    task: Task | None = None
    means: UnitMeans | None = None
    neurons: int = 64
    heads: int = 4
    validation: Task | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        told = self.circuit.emotions if self.task is None else self.task.emotions
        missing = sorted(set(self.circuit.emotions) - set(told))
        if missing:
            raise DataError(f"The task has no texts for {', '.join(missing)} of the circuit.")
        there = self.circuit.sizes.sum(0).tolist()
        for name, count, most in zip(
            ("heads", "neurons"), (self.heads, self.neurons), there, strict=True
        ):
            if not 0 <= count <= most:
                raise DataError(f"There are {most} {name}, not {count}; ask for fewer.")
        if not self.neurons + self.heads:
            raise DataError("A circuit has at least one unit; ask for neurons, heads or both.")

    @property
    def ranked_by(self) -> tuple[Task, UnitMeans]:
        """Task and means.

        Raises:
            DataError: If either is missing.
        """
        if self.task is None or self.means is None:
            raise DataError(
                "This strategy ranks units by a task and the means of units; give both, or take "
                "one that reads neither (published, direct)."
            )
        return self.task, self.means


@dataclass(frozen=True)
class Strategy:
    """A row of `STRATEGIES`.

    Attributes:
        name: What users write.
        help: One line for lists.
        choose: Gives the circuit, with its scores and its provenance.
        reads_task: Whether it looks at the task and the means.
        slopes: If its scores are these, which are means over texts.
    """

    name: str
    help: str
    choose: Callable[[Search], Circuit]
    reads_task: bool = True
    slopes: GradientSettings | None = None


def find_by(strategy: str, search: Search) -> Circuit:
    """A circuit by a strategy's name.

    Raises:
        UnknownNameError: If there is no such strategy.
        MismatchError: If the circuit that differences are taken from is another model's.
        DataError: If the model is being steered, or what the strategy needs is missing.
    """
    from affectlens.circuits.ranking import STRATEGIES

    row = STRATEGIES[strategy]
    refuse_listeners(search.model.hf, "A circuit")
    search.circuit.provenance.require_model(search.model.fingerprint, search.model.name)
    found = row.choose(search)
    asked = {"strategy": row.name}
    if row.reads_task and search.task is not None:
        asked["task"] = search.task.name
    made = found.provenance
    return replace(found, provenance=replace(made, parameters={**made.parameters, **asked}))
