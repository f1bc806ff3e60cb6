"""How much a run does: all that its claims need, or as much as shows the line in minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from affectlens.core.registry import Registry
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.styles import styled

if TYPE_CHECKING:
    from affectlens.pipeline.own.texts import OwnTexts
    from affectlens.pipeline.run_config import RunConfig
    from affectlens.steering.refine import RefineSettings


@dataclass(frozen=True)
class RunSize:
    """A row of `SIZES`.

    Attributes:
        name: What users write.
        help: One line.
        change: Makes its settings of those of a full run.
    """

    name: str
    help: str
    change: Callable[[Settings], Settings]


def settings_of(config: RunConfig, own: OwnTexts | None = None) -> Settings:
    """The settings of a run of the size that was asked for.

    Args:
        config: What is asked.
        own: The user's own texts, if they are read already.

    Raises:
        DataError: If a run cannot be on those texts.
        UnknownNameError: If there is no such size, style, device or dtype.
    """
    found = styled(SIZES[config.size].change(Settings.of(config, own)), config.style)
    if not found.fit_judge.labels:
        return found
    # A scenario of one's own may be a single text: all of them, as --per-label bounds them.
    return replace(found, activations=replace(found.activations, per_split=None))


def _shorter(descent: RefineSettings) -> RefineSettings:
    return replace(descent, steps=12, groups_per_step=2)


def _small(full: Settings) -> Settings:
    """The same arms and controls on fewer texts, with a shorter descent; no test of the circuit."""
    return replace(
        full,
        express=replace(full.express, n_events=24),
        activations=replace(full.activations, per_split=12),
        directions=replace(full.directions, refine=_shorter(full.directions.refine)),
        circuit=replace(full.circuit, prompts=2, refine=_shorter(full.circuit.refine)),
        evidence=replace(full.evidence, parts=()),
        controls=replace(full.controls, refine=_shorter(full.controls.refine)),
        pack=replace(full.pack, rms_events=8),
        tune=replace(full.tune, n_events=6, extensions=3),
        evaluate=replace(full.evaluate, n_events=20),
        judge=replace(full.judge, garbled=100),
    )


SIZES: Registry[RunSize] = Registry(
    "size of a run",
    RunSize(
        "full",
        "all texts, the circuit tested; hours on two cores (the README's figures are of small)",
        lambda settings: settings,
    ),
    RunSize(
        "small",
        "all stages and arms on a quarter of the texts, a shorter descent, the circuit not tested",
        _small,
    ),
)
"""Every size, the default first."""
