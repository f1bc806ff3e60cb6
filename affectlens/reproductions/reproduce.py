"""Running a study: its steps in order, skipping what is done and unchanged."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from affectlens.core.errors import unknown
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.engine import Runner, Stage
from affectlens.pipeline.run import OnStage, writing_alone
from affectlens.pipeline.run_config import RunConfig
from affectlens.reproductions.registry import REPRODUCTIONS
from affectlens.reproductions.request import StudyRequest
from affectlens.reproductions.study import StudyRun


def reproduce(
    request: StudyRequest,
    *,
    settings: Any = None,
    until: str | None = None,
    on_stage: OnStage = lambda _s, _w, _t: None,
) -> Path:
    """Run a published study on a model, and put each figure beside the paper's.

    The folder then holds ``report.md``, ``report.html``, ``figures.json`` and ``figures.parquet``.

    Args:
        request: Study, model and material.
        settings: The study's constants, for those who want others than the published ones.
        until: The last step wanted; None = all.
        on_stage: Told ``(step, "started" | "done" | "skipped", seconds)``.

    Returns:
        The folder.

    Raises:
        AffectLensError: In one sentence; finished steps stay and are skipped the next time.
    """
    study = REPRODUCTIONS[request.study]
    known = [correction.name for correction in study.corrections]
    for name in request.corrections:
        if name not in known:
            raise unknown("correction", name, known)
    study.material(request)  # a fault in a file is told before weights are loaded
    config = RunConfig.checked(
        model=request.model,
        out=request.out,
        device=request.device,
        dtype=request.dtype,
        seed=request.seed,
        template_variables=dict(request.template_variables),
        force=request.force,
    )
    context = RunContext(config)
    constants = study.settings() if settings is None else settings
    runs = [StudyRun(context, request, study, step, constants) for step in study.steps]
    stages = [
        Stage(
            run.step.name,
            run.step.needs,
            run.depends,
            partial(run.step.work, run),
            run.step.title,
        )
        for run in runs
    ]
    with writing_alone(request.out):
        Runner(request.out, stages, context.digests, request.force, on_stage).run(until)
    return request.out
