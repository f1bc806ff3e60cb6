"""The stage ``controls``: random units, as they are and refined like the circuit."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.progress import progress
from affectlens.pipeline.corpus_files import refine_corpora
from affectlens.pipeline.settings import ControlsSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import CIRCUIT


def random_units(draw: int) -> str:
    """File of a draw of random units, not refined; draws count from 1."""
    return f"random_units_{draw}.safetensors"


def random_units_refined(draw: int) -> str:
    """File of the same draw refined."""
    return f"random_units_{draw}_refined.safetensors"


def controls(run: StageRun) -> Sequence[str]:
    """Draw as many units in every sublayer at random, and refine what is added to them alike.

    They start from their own group differences and get the same descent as the circuit: the same
    steps on the same texts.
    """
    from affectlens.circuits import Circuit
    from affectlens.steering.refine import refine_circuit

    settings: ControlsSettings = run.settings
    circuit = Circuit.load(run.input("circuit", CIRCUIT))
    corpora = refine_corpora(run, settings.mix, circuit.emotions)
    files: list[str] = []
    for draw, seed in enumerate(settings.seeds, 1):
        drawn = circuit.randomised(seed)
        drawn.save(run.folder / random_units(draw))
        with progress(f"refining random units {draw}", settings.refine.steps) as advance:
            refined = refine_circuit(
                run.model, drawn, corpora, settings=settings.refine, advance=advance
            )
        refined.save(run.folder / random_units_refined(draw))
        files += [random_units(draw), random_units_refined(draw)]
    return files
