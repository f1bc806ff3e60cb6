"""A circuit by a strategy's name: from a circuit there is, or from a model and a corpus alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.pipeline.circuit_task import circuit_of

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.datasets import Corpus
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.pipeline.corpus_choice import CorpusChoice

SCORE = "contrast"
"""What a neuron or head does in an emotion beyond what it does in all: as in a run."""


@dataclass(frozen=True)
class FindRequest:
    """What `affectlens circuit find` is asked.

    Attributes:
        corpus: Texts that units are chosen on: of directions and contributions where there is no
            circuit to begin with, and of the task.
        strategy: A name in `STRATEGIES`.
        neurons, heads: Of each emotion.
        delta: What is added to them, see `affectlens.circuits.ranking.deltas`.
        task: A name in `TASKS`.
        items: At most so many items of the task; None: all.
        means: Replies that units' means are taken of; None: the same texts.
        begin: File of a circuit whose contributions and differences are kept; None: they are made
            anew, from model and corpus.
        model: Default: that of the circuit to begin with, by name.
        device, dtype: See `load_model`.
    """

    corpus: CorpusChoice
    strategy: str = "attribution_patching"
    neurons: int = 64
    heads: int = 4
    delta: str = "group"
    task: str = "carry_over"
    items: int | None = None
    means: CorpusChoice | None = None
    begin: Path | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None


@dataclass(frozen=True, eq=False)
class Found:
    """What came of it.

    Attributes:
        circuit: Ranked, untested.
        directions: That its contributions were found with; None if they were there before.
    """

    circuit: Circuit
    directions: Directions | None

    def save(self, path: Path) -> None:
        """Write the circuit, and the directions beside it, where `directions_beside` looks.

        Raises:
            ArtefactError: If a file cannot be written.
        """
        self.circuit.save(path)
        if self.directions is not None:
            self.directions.save(directions_beside(path))


def directions_beside(circuit_file: Path) -> Path:
    """Where directions lie that a circuit was found with, if it was found without a run."""
    return circuit_file.with_name(f"{circuit_file.stem}_directions.safetensors")


def find_by_strategy(request: FindRequest) -> Found:
    """Find a circuit.

    Raises:
        ArtefactError: If the circuit to begin with is missing or damaged.
        MismatchError: If it is of another model.
        UnknownNameError: If there is no such strategy, task or difference.
        DataError: If neither a model nor a circuit is named, or the texts do not do.
    """
    from affectlens.circuits import unit_means
    from affectlens.circuits.ranking import STRATEGIES, Search, find_by
    from affectlens.circuits.ranking.deltas import DELTAS, with_delta_by
    from affectlens.circuits.tasks import TASKS
    from affectlens.circuits.texts_seen import with_texts
    from affectlens.core import DataError
    from affectlens.core.errors import unknown
    from affectlens.models import load_model

    row, kind = STRATEGIES[request.strategy], TASKS[request.task]
    if request.delta not in DELTAS:
        raise unknown("difference", request.delta, DELTAS)
    before = None if request.begin is None else circuit_of(request.begin)
    texts = request.corpus.load()
    others = texts if request.means is None else request.means.load()
    name = request.model or (before and before.provenance.model_name)
    if not name:
        raise DataError("Name a model to find a circuit in, or a circuit to begin with.")
    if before is None:
        texts.require_emotions()
    model = load_model(name, device=request.device, dtype=request.dtype)
    directions = None
    if before is None:
        before, directions = _from_texts(model, texts)
    before.provenance.require_model(model.fingerprint, model.name)
    task = means = None
    if row.reads_task or request.delta == "carried":
        task = kind.make(model, texts, before.emotions)
        task = task if request.items is None else task.first(request.items)
    if row.reads_task:
        means = unit_means(model, others, before.emotions)
    search = Search(model, before, task, means, neurons=request.neurons, heads=request.heads)
    found = find_by(request.strategy, search)
    if task is not None:
        found = with_texts(with_delta_by(request.delta, found, model, texts, task), texts)
    return Found(found, directions)


def _from_texts(model: LanguageModel, texts: Corpus) -> tuple[Circuit, Directions]:
    """Contributions, influence and differences of a model and texts alone, with the directions."""
    from affectlens.circuits import find_circuit
    from affectlens.circuits.find import circuit_directions

    directions = circuit_directions(model, texts)
    return find_circuit(model, texts, directions, score=SCORE, split=None), directions
