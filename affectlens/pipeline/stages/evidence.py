"""The stage ``evidence``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.pipeline.evidence_settings import EvidenceSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import CIRCUIT

if TYPE_CHECKING:
    from affectlens.datasets import Corpus

FOLDER = "evidence"


def evidence(run: StageRun) -> Sequence[str]:
    """The circuit put to the tests that decide most, in small."""
    from affectlens.circuits import Circuit
    from affectlens.circuits.evidence.parts import DONE, PARTS, VERDICT, gather
    from affectlens.circuits.evidence.study import Study
    from affectlens.circuits.tasks import CarryOver
    from affectlens.circuits.verdict import Evidence, Finding

    settings: EvidenceSettings = run.settings
    circuit = Circuit.load(run.input("circuit", CIRCUIT))
    if not settings.parts:  # the user's texts make no task: nothing is tested, and that is said
        words: dict[str, dict[str, Finding]] = {emotion: {} for emotion in circuit.emotions}
        (run.folder / FOLDER).mkdir(exist_ok=True)
        Evidence(circuit.units_fingerprint, words).save(run.folder / FOLDER / VERDICT)
        return [f"{FOLDER}/{VERDICT}"]
    replies = run.corpus("replies")
    task = CarryOver.of(run.model, replies.filter(role=settings.role), circuit.emotions)
    study = Study(
        run.model,
        circuit,
        task.first(settings.groups),
        _some(replies.filter(role=settings.means_role), settings.means_scenarios),
        settings.study(min(len(circuit.neurons[e]) for e in circuit.emotions)),
        small=task.first(settings.few_groups),
    )
    gather(study, run.folder / FOLDER, settings.parts, anew=run.force)
    rows = [PARTS[name] for name in settings.parts]
    files = [VERDICT, DONE, *(file for row in rows for file in (row.file, row.table))]
    return [f"{FOLDER}/{file}" for file in files]


def _some(corpus: Corpus, scenarios: int) -> Corpus:
    from dataclasses import replace

    kept = set(corpus.scenarios()[:scenarios])
    return replace(corpus, records=tuple(r for r in corpus.records if r.scenario in kept))
