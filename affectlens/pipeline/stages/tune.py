"""The stage ``tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from affectlens.core.artefact import write_json
from affectlens.pipeline.settings import TuneSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.pack import UNTUNED

if TYPE_CHECKING:
    from affectlens.datasets import Record

PACK = "pack.safetensors"
TUNING = "tuning.json"


def tune(run: StageRun) -> Sequence[str]:
    """Choose a strength per mode and emotion on the tuning scenarios."""
    from affectlens.evaluation import choose_strengths
    from affectlens.pipeline.tuning import tuning_points
    from affectlens.steering import SteeringPack

    settings: TuneSettings = run.settings
    untuned = SteeringPack.load(run.input("pack", UNTUNED))
    points = tuning_points(run, untuned, tuning_events(run), dict(settings.strengths))
    chosen = choose_strengths(points, max_perplexity_ratio=settings.max_perplexity_ratio)
    tuned = untuned
    for mode, strengths in chosen.items():
        tuned = tuned.with_recommended(mode, strengths)
    write_json(run.folder / TUNING, {"points": [asdict(p) for p in points], "chosen": chosen})
    tuned.save(run.folder / PACK)
    return [TUNING, PACK]


def tuning_events(run: StageRun) -> list[Record]:
    """One event per tuning scenario, the valences in turn."""
    from affectlens.datasets import Corpus
    from affectlens.pipeline.expression import spread

    settings: TuneSettings = run.settings
    events = run.events("tune")
    return spread(Corpus("tune", "texts", tuple(events)), min(settings.n_events, len(events)))
