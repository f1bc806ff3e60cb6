"""A circuit from a file, put to all tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.pipeline.circuit_task import TaskRequest, circuit_of, read_test

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.circuits.evidence.study import StudySettings
    from affectlens.circuits.verdict import Evidence
    from affectlens.pipeline.corpus_choice import CorpusChoice


@dataclass(frozen=True)
class EvidenceRequest:
    """What `affectlens circuit evidence` is asked.

    Attributes:
        about: The circuit, and texts that it was not found on.
        settings: Of every part.
        parts: Names in `affectlens.circuits.evidence.parts.PARTS`.
        folder: Where the parts are kept.
        directions_file: That the circuit was found with, for stability.
        paraphrases: The contents of the texts of the means in other words, likewise.
    """

    about: TaskRequest
    settings: StudySettings
    parts: tuple[str, ...]
    folder: Path
    directions_file: Path | None = None
    paraphrases: CorpusChoice | None = None


def circuit_evidence(
    request: EvidenceRequest, on_part: Callable[[str, str], None] = lambda _name, _what: None
) -> Evidence:
    """Test a circuit.

    Raises:
        ArtefactError: If a file is missing or damaged.
        MismatchError: If the circuit is of another model.
        UnknownNameError: If there is no such part or task.
        DataError: If task and means share texts, the units were chosen on them, or they do not do.
    """
    from affectlens.circuits.evidence.parts import PARTS, RANKED_ANEW, gather
    from affectlens.circuits.evidence.ranked_anew import require_again
    from affectlens.circuits.evidence.study import Study
    from affectlens.geometry import Directions

    for part in request.parts:
        PARTS[part]  # an unknown name is told before weights are read
    asked = read_test(request.about)
    directions = None
    if not RANKED_ANEW.isdisjoint(request.parts):
        if request.directions_file is not None:
            directions = Directions.load(request.directions_file)
        require_again(asked.circuit, directions)
    others = None if request.paraphrases is None else request.paraphrases.load()
    given = asked.ready()
    study = Study(
        given.model,
        given.circuit,
        given.task,
        given.others,
        request.settings,
        directions,
        again=asked.task_for,
        paraphrases=others,
    )
    return gather(study, request.folder, request.parts, on_part)


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
