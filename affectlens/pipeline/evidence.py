"""A circuit from a file, put to all tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError
from affectlens.pipeline.ablate import apart

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.circuits.evidence.study import StudySettings
    from affectlens.circuits.verdict import Evidence
    from affectlens.pipeline.corpus_choice import CorpusChoice


@dataclass(frozen=True)
class EvidenceRequest:
    """What `affectlens circuit evidence` is asked.

    Attributes:
        circuit_file: Of `Circuit.save`.
        corpus: Texts that the circuit was not found on; the task is made of them.
        means: Replies that means and values of units are taken of.
        settings: Of every part.
        parts: Names in `affectlens.circuits.evidence.parts.PARTS`.
        folder: Where the parts are kept.
        task: A name in `affectlens.circuits.tasks.TASKS`.
        groups: At most so many items of the task; None: all.
        directions_file: That the circuit was found with, for stability.
        model: Default: the name of the model the circuit was found in.
        device, dtype: See `load_model`.
    """

    circuit_file: Path
    corpus: CorpusChoice
    means: CorpusChoice
    settings: StudySettings
    parts: Sequence[str]
    folder: Path
    task: str = "carry_over"
    groups: int | None = None
    directions_file: Path | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None


def circuit_evidence(
    request: EvidenceRequest, on_part: Callable[[str, str], None] = lambda _name, _what: None
) -> Evidence:
    """Test a circuit.

    Raises:
        ArtefactError: If a file is missing or damaged.
        MismatchError: If the circuit is of another model.
        UnknownNameError: If there is no such part or task.
        DataError: If task and means share texts, or the texts do not do.
    """
    from affectlens.circuits.evidence.parts import PARTS, gather
    from affectlens.circuits.evidence.study import Study
    from affectlens.circuits.tasks import TASKS
    from affectlens.geometry import Directions
    from affectlens.models import load_model

    for part in request.parts:
        PARTS[part]  # an unknown name is told before weights are read
    kind = TASKS[request.task]
    circuit = circuit_of(request.circuit_file)
    wanted = "stability" in request.parts and request.directions_file is not None
    directions = Directions.load(request.directions_file or "") if wanted else None
    texts, others = request.corpus.load(), request.means.load()
    apart(texts, others)
    name = request.model or circuit.provenance.model_name
    model = load_model(name, device=request.device, dtype=request.dtype)
    circuit.provenance.require_model(model.fingerprint, model.name)

    def made(of: object) -> object:
        task = kind.make(of, texts, circuit.emotions)
        return task if request.groups is None else task.first(request.groups)

    study = Study(
        model,
        circuit,
        made(model),  # pyright: ignore[reportArgumentType]
        others,
        request.settings,
        directions,
        again=made,  # pyright: ignore[reportArgumentType]
    )
    return gather(study, request.folder, request.parts, on_part)


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


def shown_circuit(file: Path, folder: Path) -> Circuit:
    """A circuit with its evidence: its own, or that in a folder beside it.

    Raises:
        ArtefactError: If there is no circuit, or something is damaged.
    """
    from affectlens.circuits.evidence.parts import VERDICT
    from affectlens.circuits.verdict import Evidence

    circuit = circuit_of(file)
    beside = folder / VERDICT
    if not beside.is_file():
        return circuit
    evidence = Evidence.load(beside)
    # What was found of units that the circuit had before says nothing of those it has now.
    return (
        circuit.with_evidence(evidence) if evidence.units == circuit.units_fingerprint else circuit
    )
