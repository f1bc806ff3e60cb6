"""The line of stages from text to report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError
from affectlens.core.artefact import disk_error
from affectlens.core.extras import require
from affectlens.core.lock import held
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.engine import Runner, Stage
from affectlens.pipeline.run_config import RunConfig
from affectlens.pipeline.stage import StageRun

if TYPE_CHECKING:
    from affectlens.pipeline.settings import Settings

LOCK = "run.lock"
PACKAGES = ("plotly", "pyarrow", "scipy", "sklearn")
"""What its stages import, long after it has begun."""
OnStage = Callable[[Stage, str, float], None]


def run(
    config: RunConfig,
    *,
    settings: Settings | None = None,
    until: str | None = None,
    on_stage: OnStage = lambda _s, _w, _t: None,
    on_notice: Callable[[str], object] = lambda _notice: None,
) -> Path:
    """Do the stages of a run, skipping what is done and unchanged.

    Args:
        config: What to do.
        settings: Of the stages, for those who want other numbers than the command line offers;
            default: `Settings.of` the config.
        until: The last stage wanted; None = all.
        on_notice: Told what a user's own texts cannot give, a sentence each, before any stage.
        on_stage: Told ``(stage, "started" | "done" | "skipped", seconds)``.

    Returns:
        The run folder.

    Raises:
        AffectLensError: In one sentence; finished stages stay and are skipped the next time.
    """
    require(PACKAGES, "A run")
    context = RunContext(config, settings)
    _ = context.settings  # an unknown size or style is said before anything is written
    for notice in () if context.own is None else context.own.notices:
        on_notice(notice)
    with writing_alone(config.out):
        runner = Runner(config.out, stages(context), context.digests, config.force, on_stage)
        runner.run(until)
    return config.out


@contextmanager
def writing_alone(folder: Path) -> Generator[None]:
    """Make a run folder and hold its lock; who only reads goes on as ever.

    Raises:
        ArtefactError: If it is a file, not writable, or another process writes it.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file; give --out a folder.")
    state = folder / "state"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(state, error) from error
    with held(state / LOCK, folder):
        yield


def stages(context: RunContext) -> list[Stage]:
    """All stages in order, as the runner wants them."""
    from affectlens.pipeline.line import STAGES

    found: list[Stage] = []
    for row in STAGES.values():
        one = context.stage(row.name)
        found.append(
            Stage(row.name, row.needs, partial(depends, one), partial(row.work, one), row.title)
        )
    return found


def depends(stage: StageRun) -> Mapping[str, Any]:
    """What the result of a stage depends on, the files of other stages apart."""
    return {"settings": stage.settings, "read": stage.made_by()}
