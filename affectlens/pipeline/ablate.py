"""A circuit from a file, tested on a corpus of replies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, DataError

if TYPE_CHECKING:
    from affectlens.circuits.evidence import AblationCurve, AblationSettings
    from affectlens.datasets import Corpus
    from affectlens.pipeline.corpus_choice import CorpusChoice


@dataclass(frozen=True)
class AblationRequest:
    """What `affectlens circuit ablate` is asked.

    Attributes:
        circuit_file: Of `Circuit.save`.
        corpus: Replies that the circuit was not found on; the task is made of them.
        means: Replies that the units' means are taken of.
        settings: What is taken out, and beside what.
        groups: At most so many groups of the corpus; None: all.
        model: Default: the name of the model the circuit was found in.
        device, dtype: See `load_model`.
    """

    circuit_file: Path
    corpus: CorpusChoice
    means: CorpusChoice
    settings: AblationSettings
    groups: int | None = None
    model: str | None = None
    device: str | None = None
    dtype: str | None = None


def ablate_circuit(request: AblationRequest) -> AblationCurve:
    """Test a circuit.

    Raises:
        ArtefactError: If there is no circuit, or it is damaged.
        MismatchError: If it is of another model.
        DataError: If task and means share texts, or the texts do not do; see `ablate`.
    """
    from affectlens.circuits import Circuit, unit_means
    from affectlens.circuits.evidence import ablate, tone_samples
    from affectlens.circuits.tasks import CarryOver
    from affectlens.models import load_model

    if not request.circuit_file.is_file():
        raise ArtefactError(
            f"There is no circuit {request.circuit_file}; find one with `affectlens circuit`, or "
            "name one with --circuit or --out."
        )
    circuit = Circuit.load(request.circuit_file)
    texts, others = request.corpus.load(), request.means.load()
    apart(texts, others)
    name = request.model or circuit.provenance.model_name
    model = load_model(name, device=request.device, dtype=request.dtype)
    circuit.provenance.require_model(model.fingerprint, model.name)
    task = CarryOver.of(model, texts, circuit.emotions)
    if request.groups is not None:
        task = task.first(request.groups)
    means = unit_means(model, others, circuit.emotions, position="mean:reply")
    resampled = request.settings.by == "resample"
    samples = tone_samples(model, others, circuit.emotions) if resampled else None
    return ablate(model, task, circuit, means, request.settings, samples)


def apart(texts: Corpus, others: Corpus) -> None:
    """Refuse texts that a task and means share.

    Raises:
        DataError: If they share a scenario.
    """
    shared = {record.scenario for record in texts} & {record.scenario for record in others}
    if shared:
        raise DataError(
            f"The texts of the task and those of the means share {len(shared)} scenarios "
            f"({sorted(shared)[0]}, ...); choose other roles (--role, --means-role)."
        )
