"""The stage ``directions``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.core.progress import progress
from affectlens.pipeline.corpus_files import refine_corpora
from affectlens.pipeline.settings import DirectionsSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.activations import FOLDER

DIRECTIONS = "directions.safetensors"
REFINED_DIRECTIONS = "refined.safetensors"


def directions(run: StageRun) -> Sequence[str]:
    """Group-centred directions of every block, then those of the steered blocks refined."""
    from affectlens.activations import ActivationStore
    from affectlens.geometry import directions as find
    from affectlens.steering.refine import refine_directions

    settings: DirectionsSettings = run.settings
    found = find(
        ActivationStore.open(run.input("activations", f"{FOLDER}/expression")),
        emotions=settings.emotions,
        estimator=settings.estimator,
        splits=settings.splits,
        seed=settings.seed,
    )
    found.save(run.folder / DIRECTIONS)
    with progress("refining directions", settings.refine.steps) as advance:
        refined = refine_directions(
            run.model,
            found,
            refine_corpora(run, settings.mix, settings.emotions),
            layers=settings.layers.of(run.model.n_layers),
            settings=settings.refine,
            advance=advance,
        )
    refined.save(run.folder / REFINED_DIRECTIONS)
    return [DIRECTIONS, REFINED_DIRECTIONS]
