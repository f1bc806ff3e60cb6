"""The stage ``circuit``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.progress import progress
from affectlens.pipeline.corpus_files import expressed, refine_corpora
from affectlens.pipeline.settings import CircuitSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.directions import DIRECTIONS

CIRCUIT = "circuit.safetensors"
REFINED_CIRCUIT = "circuit_refined.safetensors"


def circuit(run: StageRun) -> Sequence[str]:
    """The neurons and heads that write each emotion, then what is added to them refined."""
    from affectlens.circuits import find_circuit
    from affectlens.circuits.find import neutral_prompts
    from affectlens.circuits.units import unit_sizes
    from affectlens.geometry import Directions
    from affectlens.steering.refine import refine_circuit

    settings: CircuitSettings = run.settings
    events = run.corpus("events").filter(split="fit")
    found = find_circuit(
        run.model,
        expressed(run),
        Directions.load(run.input("directions", DIRECTIONS)),
        budget=settings.budget.of(unit_sizes(run.model.anatomy)),
        position=settings.position,
        score=settings.score,
        reference=settings.reference,
        split=None,
        prompts=neutral_prompts(run.model, settings.prompts, events),
        max_tokens_per_batch=settings.max_tokens_per_batch,
    )
    found.save(run.folder / CIRCUIT)
    with progress("refining the circuit", settings.refine.steps) as advance:
        refined = refine_circuit(
            run.model,
            found,
            refine_corpora(run, settings.mix, found.emotions),
            settings=settings.refine,
            advance=advance,
        )
    refined.save(run.folder / REFINED_CIRCUIT)
    return [CIRCUIT, REFINED_CIRCUIT]
