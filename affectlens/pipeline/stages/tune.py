"""The stage ``tune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from affectlens.core.artefact import write_json
from affectlens.pipeline.pack_files import TUNED, tuned_file, untuned_file
from affectlens.pipeline.settings import TuneSettings
from affectlens.pipeline.stage import StageRun

if TYPE_CHECKING:
    from affectlens.datasets import Record

TUNING = "tuning.json"


def tune(run: StageRun) -> Sequence[str]:
    """Choose a strength per arm and emotion; arms that a stopped run has measured are kept."""
    from affectlens.evaluation import ARMS, beyond, choose_strengths
    from affectlens.pipeline.tuning import Tuner
    from affectlens.pipeline.tuning_files import ArmPoints
    from affectlens.steering import SteeringPack

    settings: TuneSettings = run.settings
    limit = settings.max_perplexity_ratio
    packs = {
        name: SteeringPack.load(run.input("pack", untuned_file(name)))
        for name in dict.fromkeys(TUNED.values())
    }
    arms = [ArmPoints(run, arm, grid, packs[TUNED[arm]]) for arm, grid in settings.strengths]
    measured = {arm.arm: known for arm in arms if (known := arm.known()) is not None}
    left = [arm for arm in arms if arm.arm not in measured]
    if left:
        tuner = Tuner.start(run, tuning_events(run))
        for arm in left:
            measured[arm.arm] = tuner.search(arm.arm, arm.pack, arm.strengths)
            arm.save(measured[arm.arm])
    points = [point for arm in arms for point in measured[arm.arm]]
    chosen = choose_strengths(points, max_perplexity_ratio=limit)
    at_end = [list(key) for key in beyond(points, chosen)]
    write_json(
        run.folder / TUNING,
        {"points": [asdict(p) for p in points], "chosen": chosen, "at_end": at_end},
    )
    for arm, strengths in chosen.items():
        name = TUNED[arm]
        packs[name] = packs[name].with_recommended(ARMS[arm].mode, strengths)
    for name, pack in packs.items():
        pack.save(run.folder / tuned_file(name))
    return [TUNING, *map(tuned_file, packs)]


def tuning_events(run: StageRun) -> list[Record]:
    """One event per tuning scenario, the valences in turn."""
    from affectlens.datasets import Corpus
    from affectlens.pipeline.expression import spread

    settings: TuneSettings = run.settings
    events = run.events("tune")
    return spread(Corpus("tune", "texts", tuple(events)), min(settings.n_events, len(events)))
