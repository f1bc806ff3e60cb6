"""What a consensus costs: how much a circuit keeps once only the units of its core are left.

The core are those of its units that samples of the texts agree on. Beside it stand as many of the
circuit's own units drawn at random: if they keep as much, it was the number and not the agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.ablation import Samples, put_for
from affectlens.circuits.evidence.conditions import Conditions
from affectlens.circuits.evidence.draws import mask_of, sizes_of
from affectlens.circuits.evidence.faithfulness import FaithfulnessSettings, contrasts
from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.evidence.items import items_of, with_margin
from affectlens.circuits.evidence.plan import check_parts, made_by
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS
from affectlens.core.artefact import Provenance
from affectlens.core.progress import progress
from affectlens.core.statistics import (
    Difference,
    against_draws,
    holm,
    ratio_interval,
)

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.circuits.evidence.stability import Stability
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Cost:
    """Of one emotion.

    Attributes:
        emotion: Whose.
        units, core: How many units the circuit has, of the kind that was chosen anew, and how many
            of them are left.
        circuit, kept: f of the circuit and of its core (faithfulness); NaN if the model has no
            margin to keep.
        cost: What is lost between them, as a share of the model's margin, with its 95 % interval.
        random: Mean f of as many of the circuit's units drawn at random.
        difference: Margin with the core less that with random ones, paired by text.
        p: Of it, by Holm over the emotions.
    """

    emotion: str
    units: int
    core: int
    circuit: float
    kept: float
    cost: float
    interval: tuple[float, float]
    random: float
    difference: Difference
    p: float


@dataclass(frozen=True, eq=False, repr=False)
class CoreCost(Measured):
    """Margins, own context less another tone's; NaN where a text has none.

    Attributes:
        emotions: The first axis of all.
        units: Of each emotion, how many units its circuit and its core have.
        scenarios: Of each text.
        whole, empty: Of the model as it is, and with all units ablated.
        circuit, core: With the circuit alone, and with its core alone.
        random: With as many of the circuit's units alone.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    units: tuple[tuple[int, int], ...]
    scenarios: tuple[str, ...]
    whole: Float[Floats, "emotion text"]
    empty: Float[Floats, "emotion text"]
    circuit: Float[Floats, "emotion text"]
    core: Float[Floats, "emotion text"]
    random: Float[Floats, "emotion draw text"]
    provenance: Provenance
    kind: ClassVar[str] = "core_cost"
    arrays: ClassVar[tuple[str, ...]] = ("whole", "empty", "circuit", "core", "random")
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "emotions": tuple,
        "units": lambda pairs: tuple((int(a), int(b)) for a, b in pairs),
        "scenarios": tuple,
    }

    def results(self) -> list[Cost]:
        """Of every emotion."""
        parts = [self._parts(e) for e in range(len(self.emotions))]
        p = holm([part["difference"].p for part in parts])
        return [Cost(p=float(p[e]), **part) for e, part in enumerate(parts)]

    def _parts(self, e: int) -> dict[str, Any]:
        kept, scenarios = with_margin(self.whole[e], self.scenarios)
        whole, empty, circuit, core = (
            part[e, kept] for part in (self.whole, self.empty, self.circuit, self.core)
        )
        random, span = self.random[e][:, kept], float((whole - empty).mean())

        def f(above: Float[Floats, " text"]) -> float:
            return float(above.mean() / span) if span > 0 else float("nan")

        return {
            "emotion": self.emotions[e],
            "units": self.units[e][0],
            "core": self.units[e][1],
            "circuit": f(circuit - empty),
            "kept": f(core - empty),
            "cost": f(circuit - core),
            "interval": ratio_interval(circuit - core, whole - empty, scenarios),
            "random": f(random.mean(0) - empty),
            "difference": against_draws(core, random, scenarios),
        }

    def brief(self) -> dict[str, object]:
        """Kind of units, mean share of them in the core, mean cost, model."""
        found = self.results()
        return {
            "kind": self.provenance.parameters["kind"],
            "core": f"{np.mean([one.core / max(one.units, 1) for one in found]):.0%}",
            "cost": f"{np.mean([one.cost for one in found]):.2f}",
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion."""
        return [
            {
                "emotion": one.emotion,
                "units": one.units,
                "core": one.core,
                "circuit": one.circuit,
                "kept": one.kept,
                "cost": one.cost,
                "low": one.interval[0],
                "high": one.interval[1],
                "random": one.random,
                "p": one.p,
            }
            for one in self.results()
        ]


def core_cost(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    stable: Stability,
    settings: FaithfulnessSettings | None = None,
    samples: Samples | None = None,
) -> CoreCost:
    """Leave the circuit alone, its core, and as many of its units drawn at random.

    Units of the kind that was not chosen anew stay, whole, in all three.

    Args:
        model: The model.
        task: Of continuations, in all emotions of the circuit.
        circuit: Of this model.
        means: Of its units.
        stable: Of this circuit; it says which units are the core.
        settings: What takes units' values' place, where, and how many draws.
        samples: Of `tone_samples`, for resampling.

    Raises:
        MismatchError, DataError: As `affectlens.circuits.evidence.faithfulness`.
    """
    check_parts(model, task, circuit)
    asked = settings or FaithfulnessSettings()
    items, kind = items_of(task), str(stable.provenance.parameters["kind"])
    made, units = list[Floats](), list[tuple[int, int]]()
    rows = 4 + asked.draws
    total = 2 * len(items) * rows * len(circuit.emotions)
    with progress("leaving cores alone", total) as advance:
        for e, emotion in enumerate(circuit.emotions):
            put = put_for(asked.by, means, samples, emotion, asked.seed)
            run = Conditions.ready(model, put, items, asked.at == "all")
            core = stable.core(circuit, emotion)
            units.append((len(circuit.units(emotion, kind)), len(core)))
            seed = asked.seed * 1_000_003 + e
            masks = _outside(circuit, emotion, kind, core, (asked.draws, seed))
            made.append(contrasts(run, items, task.emotions.index(emotion), masks, advance))
    parts = np.stack(made)
    names = ("whole", "empty", "circuit", "core")
    known = made_by("core_cost", model, task, circuit, means, asked)
    return CoreCost(
        emotions=circuit.emotions,
        units=tuple(units),
        scenarios=task.scenarios,
        **{name: parts[:, i] for i, name in enumerate(names)},
        random=parts[:, len(names) :],
        provenance=replace(
            known,
            parameters={**known.parameters, "kind": kind},
            inputs={**known.inputs, "stability": stable.provenance.fingerprint},
        ),
    )


def _outside(
    circuit: Circuit,
    emotion: str,
    kind: str,
    core: list[tuple[int, int]],
    drawn: tuple[int, int],
) -> dict[str, Bool[Tensor, "condition layer unit"]]:
    """What is ablated: nothing, all, all but the circuit, but its core, but units of it drawn."""
    draws, seed = drawn
    generator = torch.Generator().manual_seed(seed)
    found = dict[str, Tensor]()
    for of in KINDS:
        size = sizes_of(circuit)[of]
        there = torch.arange(size) < circuit.sizes[:, KINDS.index(of), None]
        own = mask_of(circuit.n_layers, size, circuit.units(emotion, of))
        left = [own] * (2 + draws)
        if of == kind:
            places = own.nonzero()
            left = [own, _at(own, torch.tensor(core).reshape(-1, 2).long())]
            for _ in range(draws):
                order = torch.randperm(len(places), generator=generator)[: len(core)]
                left.append(_at(own, places[order]))
        found[of] = torch.stack([there & False, there, *(there & ~one for one in left)])
    return found


def _at(like: Bool[Tensor, "layer unit"], places: Tensor) -> Bool[Tensor, "layer unit"]:
    mask = torch.zeros_like(like)
    mask[places[:, 0], places[:, 1]] = True
    return mask
