"""A circuit, its model and the texts of a task, from files and names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, DataError

if TYPE_CHECKING:
    from affectlens.circuits import Circuit, UnitMeans
    from affectlens.circuits.tasks import Task
    from affectlens.datasets import Corpus
    from affectlens.models import LanguageModel
    from affectlens.pipeline.corpus_choice import CorpusChoice


@dataclass(frozen=True)
class TaskRequest:
    """What a command of `affectlens circuit` names.

    Attributes:
        circuit_file: Of `Circuit.save`: its emotions, and its model by default.
        corpus: Texts of the task.
        means: Replies that the units' means are taken of.
        task: A name in `TASKS`.
        items: At most so many items of the task; None: all.
        model: Default: the name of the model the circuit was found in.
        device, dtype: See `load_model`.
    """

    circuit_file: Path
    corpus: CorpusChoice
    means: CorpusChoice
    task: str = "carry_over"
    items: int | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """What a request names, as far as it lies in files.

    Attributes:
        request: What was asked.
        circuit: The circuit.
        texts: That make the task.
        others: Replies that means are taken of.
    """

    request: TaskRequest
    circuit: Circuit
    texts: Corpus
    others: Corpus

    def task_for(self, model: LanguageModel) -> Task:
        """The task, in the tokens of a model.

        Raises:
            DataError: If the texts do not do.
        """
        from affectlens.circuits.tasks import TASKS

        task = TASKS[self.request.task].make(model, self.texts, self.circuit.emotions)
        return task if self.request.items is None else task.first(self.request.items)

    def ready(self) -> Ready:
        """With the model.

        Raises:
            MismatchError: If the circuit is of another model.
            DataError: If the texts do not do.
        """
        from affectlens.models import load_model

        asked = self.request
        name = asked.model or self.circuit.provenance.model_name
        model = load_model(name, device=asked.device, dtype=asked.dtype)
        self.circuit.provenance.require_model(model.fingerprint, model.name)
        return Ready(self.circuit, model, self.task_for(model), self.others)


@dataclass(frozen=True, eq=False)
class Ready:
    """What a request names, loaded.

    Attributes:
        circuit: Of the model.
        model: The model.
        task: In its tokens.
        others: Replies that means are taken of.
    """

    circuit: Circuit
    model: LanguageModel
    task: Task
    others: Corpus

    @cached_property
    def means(self) -> UnitMeans:
        """Of the model's units."""
        from affectlens.circuits import unit_means

        return unit_means(self.model, self.others, self.circuit.emotions, position="mean:reply")


def read(request: TaskRequest) -> Asked:
    """Read what is asked; no weights yet.

    Raises:
        ArtefactError: If there is no circuit, or it is damaged.
        UnknownNameError: If there is no such task.
        DataError: If task and means share scenarios.
    """
    from affectlens.circuits.tasks import TASKS

    TASKS[request.task]
    circuit = circuit_of(request.circuit_file)
    texts, others = request.corpus.load(), request.means.load()
    shared = {record.scenario for record in texts} & {record.scenario for record in others}
    if shared:
        raise DataError(
            f"The texts of the task and those of the means share {len(shared)} scenarios "
            f"({sorted(shared)[0]}, ...); choose other roles (--role, --means-role)."
        )
    return Asked(request, circuit, texts, others)


def read_test(request: TaskRequest) -> Asked:
    """The same for a test, whose texts must not be those that the units were chosen on.

    Raises:
        ArtefactError, UnknownNameError, DataError: As `read`; also if they are.
    """
    from affectlens.circuits.texts_seen import seen

    asked = read(request)
    if known := seen(asked.circuit, asked.texts):
        raise DataError(
            f"The circuit's units were chosen on {len(known)} of the scenarios of these texts "
            f"({known[0]}, ...), which would test nothing; choose another role (--role) or corpus."
        )
    return asked


def circuit_of(file: Path) -> Circuit:
    """A circuit from its file.

    Raises:
        ArtefactError: If there is none, or it is damaged.
    """
    from affectlens.circuits import Circuit

    if not file.is_file():
        raise ArtefactError(
            f"There is no circuit {file}; find one with `affectlens circuit`, or name one with "
            "--circuit or --out."
        )
    return Circuit.load(file)


def counts_within(file: Path, kind: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Counts of units as far as a circuit has them for every emotion, and then all it has.

    Raises:
        ArtefactError: If there is no circuit, or it is damaged.
        UnknownNameError: If there is no such kind of unit.
    """
    circuit = circuit_of(file)
    most = min(len(circuit.units(emotion, kind)) for emotion in circuit.emotions)
    if not most or most >= counts[-1]:
        return counts
    return (*(count for count in counts if count < most), most)
