"""The stage ``pack``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from affectlens.pipeline.pack_files import untuned_file
from affectlens.pipeline.settings import PackSettings
from affectlens.pipeline.stage import StageRun
from affectlens.pipeline.stages.circuit import CIRCUIT, REFINED_CIRCUIT
from affectlens.pipeline.stages.controls import random_units, random_units_refined
from affectlens.pipeline.stages.directions import DIRECTIONS, REFINED_DIRECTIONS
from affectlens.pipeline.stages.evidence import FOLDER
from affectlens.pipeline.stages.probe import PROBES

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from affectlens.circuits import Circuit
    from affectlens.geometry import Directions
    from affectlens.models import LanguageModel
    from affectlens.probes import Sweep


def pack(run: StageRun) -> Sequence[str]:
    """Fold directions and circuits into the steering packs that the arms ask for."""
    from affectlens.evaluation.arms import folded_packs

    settings: PackSettings = run.settings
    found, kinds = RunFiles(run), folded_packs()
    for name in settings.packs:
        kinds[name].fold(found).save(run.folder / untuned_file(name))
    return [untuned_file(name) for name in settings.packs]


@dataclass(frozen=True)
class RunFiles:
    """What a run has found, read from its files: `affectlens.evaluation.arms.Ingredients`."""

    run: StageRun

    @property
    def model(self) -> LanguageModel:
        """The model of the run."""
        return self.run.model

    @property
    def rms(self) -> Float[Tensor, " n_layers"]:
        """Mean RMS of the residual after each block, on fitting events."""
        return self._rms

    @cached_property
    def _rms(self) -> Float[Tensor, " n_layers"]:
        from affectlens.activations import residual_rms
        from affectlens.datasets import spread
        from affectlens.evaluation.replies import encode_event

        settings: PackSettings = self.run.settings
        events = spread(self.run.corpus("events").filter(split="fit"), settings.rms_events)
        return residual_rms(self.model, [encode_event(self.model, event) for event in events])

    @property
    def sweep(self) -> Sweep:
        """The probes."""
        from affectlens.probes import Sweep

        return Sweep.load(self.run.input("probe", PROBES))

    def directions(self, *, refined: bool) -> Directions:
        """As estimated, or refined."""
        from affectlens.geometry import Directions

        file = REFINED_DIRECTIONS if refined else DIRECTIONS
        return Directions.load(self.run.input("directions", file))

    def circuit(self, *, refined: bool) -> Circuit:
        """As found, or refined, with what was found about its units."""
        from affectlens.circuits.evidence.parts import VERDICT
        from affectlens.circuits.verdict import Evidence

        found = self._units("circuit", REFINED_CIRCUIT if refined else CIRCUIT)
        return found.with_evidence(Evidence.load(self.run.input("evidence", FOLDER) / VERDICT))

    def random_units(self, draw: int, *, refined: bool) -> Circuit:
        """A draw of random units."""
        return self._units("controls", (random_units_refined if refined else random_units)(draw))

    def _units(self, stage: str, file: str) -> Circuit:
        from affectlens.circuits import Circuit

        return Circuit.load(self.run.input(stage, file))
