"""The line of stages from text to report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from affectlens.core import ArtefactError
from affectlens.core.artefact import package_version, write_json
from affectlens.pipeline.config import RunConfig
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.engine import Runner, Stage
from affectlens.pipeline.stage import StageRun

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
    runner = Runner(config.out, stages(context), context.digests, config.force, on_stage)
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
    """All stages in order, as the runner wants them."""
    from affectlens.pipeline.line import LINE

    found: list[Stage] = []
    for row in LINE:
        one = context.stage(row.name)
        found.append(
            Stage(row.name, row.needs, partial(depends, one), partial(row.work, one), row.title)
        )
    return found


def depends(stage: StageRun) -> Mapping[str, Any]:
    """What the result of a stage depends on, the files of other stages apart."""
    return {"settings": stage.settings, "read": stage.made_by()}
