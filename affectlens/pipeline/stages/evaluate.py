"""The stage ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from affectlens.core.progress import progress
from affectlens.pipeline.settings import EvaluateSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.tune import PACK

RANDOM = "pack_random.safetensors"
"""The pack of the arm ``random``, a file because servers read files."""


def evaluate(run: StageRun) -> Sequence[str]:
    """Generate every arm on the test scenarios; arms that a stopped run has finished are kept."""
    from affectlens.evaluation import arm_requests, generate_replies, random_pack
    from affectlens.pipeline.arms import Arm
    from affectlens.pipeline.backend import backend
    from affectlens.steering import SteeringPack

    settings: EvaluateSettings = run.settings
    tuned = SteeringPack.load(run.input("tune", PACK))
    control = random_pack(tuned, "residual", settings.seed)
    control.save(run.folder / RANDOM)
    packs = {"residual": tuned, "circuit": tuned, "random": control}
    events = run.events("test")
    arms = [
        Arm(name, arm_requests(name, events, settings.emotions), packs.get(name))
        for name in settings.arms
    ]
    left = [arm for arm in arms if run.force or not arm.done(run)]
    files = {run.folder / PACK: tuned, run.folder / RANDOM: control}
    with backend(run, files) if left else nullcontext() as generating:
        for arm in left:
            with progress(f"arm {arm.name}", len(arm.requests)) as advance:
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
    return [RANDOM, *(arm.file for arm in arms)]
