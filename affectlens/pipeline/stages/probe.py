"""The stage ``probe``."""

from __future__ import annotations

from collections.abc import Sequence

from affectlens.pipeline.settings import ProbeSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.activations import FOLDER

PROBES = "probes.safetensors"


def probe(run: StageRun) -> Sequence[str]:
    """A probe per layer on the matched replies, tested on held-out scenarios."""
    from affectlens.activations import ActivationStore
    from affectlens.probes import sweep

    settings: ProbeSettings = run.settings
    found = sweep(
        ActivationStore.open(run.input("activations", f"{FOLDER}/replies")),
        probe=settings.probe,
        classes=settings.classes,
        penalties=settings.penalties,
        folds=settings.folds,
        draws=settings.draws,
        seed=settings.seed,
    )
    found.save(run.folder / PROBES)
    return [PROBES]
