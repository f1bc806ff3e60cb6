"""The stage ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.progress import progress
from affectlens.pipeline.pack_files import tuned_file
from affectlens.pipeline.settings import EvaluateSettings
from affectlens.pipeline.stage import StageRun

if TYPE_CHECKING:
    from affectlens.evaluation import Backend
    from affectlens.steering import SteeringPack


def evaluate(run: StageRun) -> Sequence[str]:
    """Generate every arm on the test scenarios; arms that a stopped run has finished are kept."""
    from affectlens.evaluation import ARMS, ImitatingPack, arm_requests, generate_replies
    from affectlens.pipeline.arm_files import ArmFiles

    settings: EvaluateSettings = run.settings
    packs = arm_packs(run)
    events = run.spread_events("test")
    arms: list[ArmFiles] = []
    made: list[str] = []
    for name in settings.arms:
        kind = ARMS[name].pack
        pack = None if kind is None else packs[kind.name]
        arms.append(
            ArmFiles(name, arm_requests(name, events, settings.emotions, settings.ask), pack)
        )
        made += [tuned_file(kind.name)] if isinstance(kind, ImitatingPack) else []
    left = [arm for arm in arms if run.force or not arm.done(run)]
    files = {run.folder / tuned_file(name): pack for name, pack in packs.items()}
    with generating(run, files) if left else nullcontext() as backend:
        for arm in left:
            with progress(f"arm {ARMS[arm.name].title}", len(arm.requests)) as advance:
                replies = generate_replies(
                    run.model,
                    arm.name,
                    arm.requests,
                    settings.generation,
                    pack=arm.pack,
                    backend=backend,
                    advance=advance,
                )
            arm.save(run, replies)
    return [*dict.fromkeys(made), *(arm.file for arm in arms)]


def arm_packs(run: StageRun) -> Mapping[str, SteeringPack]:
    """The packs of all arms, by name, each once.

    Those that imitate another are made and written here: they are files like the others, because
    servers read files.
    """
    from affectlens.evaluation import ARMS, ImitatingPack
    from affectlens.steering import SteeringPack

    settings: EvaluateSettings = run.settings
    kinds = [pack for arm in settings.arms if (pack := ARMS[arm].pack) is not None]
    packs: dict[str, SteeringPack] = {}
    for kind in dict.fromkeys(kinds):
        steered = kind.of if isinstance(kind, ImitatingPack) else kind
        packs[kind.name] = SteeringPack.load(run.input("tune", tuned_file(steered.name)))
        if isinstance(kind, ImitatingPack):
            packs[kind.name] = kind.imitate(packs[kind.name], settings.seed)
            packs[kind.name].save(run.folder / tuned_file(kind.name))
    return packs


def generating(
    run: StageRun, packs: Mapping[Path, SteeringPack], arguments: Sequence[str] = ()
) -> AbstractContextManager[Backend]:
    """The back end of the run, while a block runs.

    Args:
        run: Says which.
        packs: File to pack: all that will be steered with.
        arguments: More for a server of our own.

    Raises:
        AffectLensError: As `backend_of`.
    """
    from affectlens.evaluation.replies import encode_event
    from affectlens.pipeline.backends import backend_of

    prompt = encode_event(run.model, run.events("test")[0])
    return backend_of(run.context.config, run.model, packs, prompt, run.folder, arguments)
