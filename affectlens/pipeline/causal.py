"""The directions of a run's probes, tried: what they detect, steer and silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core import ArtefactError, Site
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.circuits.causal_table import CausalTable
    from affectlens.pipeline.corpus_choice import CorpusChoice

TABLE = "causal.json"


@dataclass(frozen=True)
class CausalRequest:
    """What is tried.

    Attributes:
        run: Run folder, whose probes, store and refined directions are used.
        tasks: Names in `TASKS` and the texts of each, the first for pushes.
        layers: Blocks; none: the sweep's best.
        items: At most so many items of each task.
        draws: Random directions beside each.
        orders: Orders of the options in which recognition is asked.
        emotions: Which; none: the six, as far as the probes tell them.
        model: Default: the name of the model of the probes.
        device, dtype: See `load_model`.
        seed: Of random directions and bootstraps.
    """

    run: Path
    tasks: dict[str, CorpusChoice]
    layers: tuple[int, ...] = ()
    items: int | None = None
    draws: int = 3
    orders: int | None = None
    emotions: tuple[str, ...] = ()
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    seed: int = 0

    def table(self) -> CausalTable:
        """Try them.

        Raises:
            ArtefactError: If the run has no probes or store.
            UnknownNameError: If a layer, task or emotion does not exist.
            DataError: If the texts do not do.
        """
        from affectlens.activations import ActivationStore
        from affectlens.circuits.detect_steer_silence import (
            CausalSettings,
            conditions,
            detect_steer_silence,
        )
        from affectlens.circuits.tasks import TASKS
        from affectlens.core.emotions import NEUTRAL
        from affectlens.core.errors import unknown
        from affectlens.geometry import Directions
        from affectlens.models import load_model
        from affectlens.pipeline.stages.activations import FOLDER
        from affectlens.pipeline.stages.directions import REFINED_DIRECTIONS
        from affectlens.pipeline.stages.probe import PROBES
        from affectlens.probes import Sweep

        if not (self.run / PROBES).is_file():
            raise ArtefactError(
                f"There are no probes {self.run / PROBES}; make them with `affectlens probe`."
            )
        sweep = Sweep.load(self.run / PROBES)
        store = ActivationStore.open(self.run / FOLDER / "replies")
        sites = [Site(layer, "resid_post") for layer in self.layers] or [sweep.best]
        for site in sites:
            sweep.index(site)
        for name in self.emotions:
            if name not in sweep.classes:
                raise unknown("emotion of these probes", name, sweep.classes)
        emotions = self.emotions or tuple(e for e in sweep.classes if e != NEUTRAL)
        texts = {name: (TASKS[name], choice.load()) for name, choice in self.tasks.items()}
        refined = self.run / REFINED_DIRECTIONS
        steering = Directions.load(refined) if refined.is_file() else None
        name = self.model or sweep.provenance.model_name
        model = load_model(name, device=self.device, dtype=self.dtype)
        tasks = {
            name: kind.make(
                model,
                corpus,
                emotions,
                **({"orders": self.orders} if "orders" in kind.options else {}),
            )
            for name, (kind, corpus) in texts.items()
        }
        if self.items is not None:
            tasks = {name: task.first(self.items) for name, task in tasks.items()}
        settings = CausalSettings(draws=self.draws, seed=self.seed)
        total = conditions(len(tasks), len(emotions), len(sites), settings)
        with progress("Trying directions", total) as advance:
            return detect_steer_silence(
                model,
                sweep,
                store,
                tasks,
                sites=sites,
                steering=steering,
                settings=settings,
                advance=advance,
            )
