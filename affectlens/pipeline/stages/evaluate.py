"""The stage ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from affectlens.core.progress import progress
from affectlens.pipeline.pack_files import MAIN, PACKS, RANDOM, TUNED, tuned_file
from affectlens.pipeline.settings import EvaluateSettings
from affectlens.pipeline.stage import StageRun

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.steering import SteeringPack


def evaluate(run: StageRun) -> Sequence[str]:
    """Generate every arm on the test scenarios; arms that a stopped run has finished are kept."""
    from affectlens.evaluation import ARMS, arm_requests, generate_replies
    from affectlens.pipeline.arm_files import Arm
    from affectlens.pipeline.backend import backend

    settings: EvaluateSettings = run.settings
    packs = arm_packs(run)
    events = evaluation_events(run)
    arms = [
        Arm(name, arm_requests(name, events, settings.emotions), packs.get(PACKS.get(name, "")))
        for name in settings.arms
    ]
    left = [arm for arm in arms if run.force or not arm.done(run)]
    files = {run.folder / tuned_file(name): pack for name, pack in packs.items()}
    with backend(run, files) if left else nullcontext() as generating:
        for arm in left:
            with progress(f"arm {ARMS[arm.name].title}", len(arm.requests)) as advance:
                replies = generate_replies(
                    run.model,
                    arm.name,
                    arm.requests,
                    settings.generation,
                    pack=arm.pack,
                    backend=generating,
                    advance=advance,
                )
            arm.save(run, replies)
    return [tuned_file(RANDOM), *(arm.file for arm in arms)]


def arm_packs(run: StageRun) -> Mapping[str, SteeringPack]:
    """The packs of all arms by name; that of the arm ``random`` is made and written here.

    It is a file like the others, because servers read files.
    """
    from affectlens.evaluation import random_pack
    from affectlens.steering import SteeringPack

    settings: EvaluateSettings = run.settings
    packs = {
        name: SteeringPack.load(run.input("tune", tuned_file(name)))
        for name in dict.fromkeys(TUNED.values())
    }
    packs[RANDOM] = random_pack(packs[MAIN], "residual", settings.seed)
    packs[RANDOM].save(run.folder / tuned_file(RANDOM))
    return packs


def evaluation_events(run: StageRun) -> list[Record]:
    """Events of the test split, spread evenly over all its scenarios and the valences."""
    from affectlens.datasets import Corpus
    from affectlens.pipeline.expression import spread

    settings: EvaluateSettings = run.settings
    events = run.events("test")
    return spread(Corpus("test", "texts", tuple(events)), min(settings.n_events, len(events)))
