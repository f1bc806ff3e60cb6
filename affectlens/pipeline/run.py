"""The line of stages from text to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, fingerprint
from affectlens.core.artefact import package_version, write_json
from affectlens.pipeline.config import RunConfig
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.engine import Runner, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

OnStage = Callable[[Stage, str, float], None]


def run(
    config: RunConfig, *, until: str | None = None, on_stage: OnStage = lambda _s, _w, _t: None
) -> Path:
    """Do the stages of a run, skipping what is done and unchanged.

    Args:
        config: What to do.
        until: The last stage wanted; None = all.
        on_stage: Told ``(stage, "started" | "done" | "skipped", seconds)``.

    Returns:
        The run folder.

    Raises:
        AffectLensError: In one sentence; finished stages stay and are skipped the next time.
    """
    check_folder(config.out)
    context = RunContext(config)
    runner = Runner(config.out, stages(context), force=config.force, on_stage=on_stage)
    runner.run(until)
    return config.out


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, before hours of work.

    Raises:
        ArtefactError: If it is a file, or not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file; give --out a folder.")
    write_json(folder / "state" / "writable.json", {"version": package_version()})


def stages(context: RunContext) -> list[Stage]:
    """All stages in order. What each one depends on is in its parameters or its inputs."""
    from affectlens.pipeline import report, steps
    from affectlens.steering.refine import CIRCUIT, RESIDUAL

    config = context.config
    base: Mapping[str, Any] = {**config.shared(), "model": context.model_identity}
    generation = {**base, "max_new_tokens": config.max_new_tokens, "events": config.events}

    def stage(
        name: str,
        needs: Sequence[str],
        work: Callable[[RunContext], Sequence[str]],
        title: str,
        parameters: Mapping[str, Any] = base,
    ) -> Stage:
        keyed = {**parameters, "version": package_version()}
        return Stage(name, tuple(needs), keyed, partial(work, context), title)

    texts = {**base, "corpora": corpora_fingerprint()}
    line = [
        stage("express", [], steps.express, "the model expresses each emotion", texts),
        stage("activations", ["express"], steps.activations, "activations of all blocks", texts),
        stage("probe", ["activations"], steps.probe, "a probe per layer"),
        stage(
            "directions",
            ["activations"],
            steps.directions,
            "emotion directions",
            {**base, "refine": asdict(RESIDUAL)},
        ),
        stage(
            "circuit",
            ["directions"],
            steps.circuit,
            "the neurons and heads behind them",
            {**base, "refine": asdict(CIRCUIT)},
        ),
        stage("pack", ["probe", "directions", "circuit"], steps.pack, "steering pack"),
        stage(
            "tune",
            ["pack"],
            steps.tune,
            "strengths, on tuning scenarios",
            {**generation, "strengths": dict(steps.STRENGTHS)},
        ),
        stage(
            "evaluate",
            ["tune"],
            steps.evaluate,
            "five arms on test scenarios",
            {**generation, "backend": config.backend},
        ),
        stage("judge", [], steps.judge, "how far the judges can be trusted", texts),
    ]
    everything = [s.name for s in line]
    work = partial(report.report, stages=everything)
    return [*line, stage("report", everything, work, "report.html and metrics.json", generation)]


def corpora_fingerprint() -> str:
    """Of the authored corpora that come with the package."""
    from affectlens.datasets import load

    return fingerprint({name: load(name).fingerprint for name in ("replies", "tones", "events")})
