"""A circuit from a file, tested on a corpus of replies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.pipeline.circuit_task import TaskRequest, read_test

if TYPE_CHECKING:
    from affectlens.circuits.evidence import AblationCurve, AblationSettings


def ablate_circuit(request: TaskRequest, settings: AblationSettings) -> AblationCurve:
    """Test a circuit.

    Args:
        request: The circuit, and texts that it was not found on.
        settings: What is taken out, and beside what.

    Raises:
        ArtefactError: If there is no circuit, or it is damaged.
        MismatchError: If it is of another model.
        DataError: If task and means share texts, the units were chosen on them, or they do not do;
            see `ablate`.
    """
    from affectlens.circuits.evidence import ablate, tone_samples

    given = read_test(request).ready()
    samples = None
    if settings.by == "resample":
        samples = tone_samples(given.model, given.others, given.circuit.emotions)
    return ablate(given.model, given.task, given.circuit, given.means, settings, samples)
