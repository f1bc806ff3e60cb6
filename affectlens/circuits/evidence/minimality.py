"""Minimality: is each unit needed among those taken out, or would any unit have done?

Each of the highest units is given back to a model without all of them; what the margin recovers is
the unit's part. The null is a unit that does not belong: a random one of the same layer is taken
out besides, and given back.

Source: Shi et al., "Hypothesis testing the circuit hypothesis in LLMs", arXiv 2410.13032.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.conditions import Conditions
from affectlens.circuits.evidence.draws import Places, mask_of, sizes_of
from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.evidence.items import items_of
from affectlens.circuits.evidence.measure import margins_under
from affectlens.circuits.evidence.plan import AT, check_parts, made_by
from affectlens.circuits.evidence.replacements import mean
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS, Unit
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.progress import progress
from affectlens.core.statistics import against_draws, holm

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
ALPHA = 0.05


@dataclass(frozen=True)
class MinimalitySettings:
    """What is given back, and beside what.

    Attributes:
        kind: ``"neurons"`` or ``"heads"``.
        units: How many, the highest scores first; fewer if the circuit has fewer.
        at: One of :data:`AT`.
        draws: Random units that do not belong, in the layers of those that do.
        seed: Of the draws.
    """

    kind: str = "neurons"
    units: int = 16
    at: str = "tone"
    draws: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of unit", self.kind, KINDS)
        if self.at not in AT:
            raise unknown("place of a replacement", self.at, AT)
        if self.units < 2 or self.draws < 2:
            raise DataError("Minimality needs two units and two draws at least.")


@dataclass(frozen=True, eq=False, repr=False)
class Minimality(Measured):
    """What the margin recovers as single units are given back, nats per token.

    Attributes:
        emotions: The first axis.
        units: Layer and index of each emotion's, the highest score first.
        scenarios: Of each text.
        recovered: With each unit given back.
        random: What a unit that does not belong takes away.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    units: tuple[tuple[tuple[int, int], ...], ...]
    scenarios: tuple[str, ...]
    recovered: Float[Floats, "emotion unit text"]
    random: Float[Floats, "emotion draw text"]
    provenance: Provenance
    kind: ClassVar[str] = "minimality"
    arrays: ClassVar[tuple[str, ...]] = ("recovered", "random")
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "emotions": tuple,
        "units": lambda units: tuple(tuple((int(a), int(b)) for a, b in own) for own in units),
        "scenarios": tuple,
    }

    def p(self) -> Float[Floats, "emotion unit"]:
        """Of each unit against those that do not belong, by Holm over the emotion's units."""
        found = np.full(self.recovered.shape[:2], np.nan)
        for e, units in enumerate(self.units):
            kept = ~np.isnan(self.random[e]).any(0)
            names = [s for s, keep in zip(self.scenarios, kept, strict=True) if keep]
            null = self.random[e][:, kept]
            own = [
                against_draws(self.recovered[e, u, kept], null, names) for u in range(len(units))
            ]
            found[e, : len(units)] = holm([one.p if one.mean > 0 else 1.0 for one in own])
        return found

    def needed(self) -> Float[Floats, " emotion"]:
        """Share of each emotion's units that do more than one that does not belong."""
        p = self.p()
        return np.array([(p[e, : len(own)] < ALPHA).mean() for e, own in enumerate(self.units)])

    def brief(self) -> dict[str, object]:
        """Kind, how many units, how many of them are needed, model."""
        return {
            "kind": self.provenance.parameters["kind"],
            "units": max(map(len, self.units)),
            "needed": f"{self.needed().mean():.0%}",
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every unit."""
        p = self.p()
        return [
            {
                "emotion": emotion,
                "layer": layer,
                "index": index,
                "recovered": float(np.nanmean(self.recovered[e, u])),
                "random": float(np.nanmean(self.random[e])),
                "p": float(p[e, u]),
            }
            for e, emotion in enumerate(self.emotions)
            for u, (layer, index) in enumerate(self.units[e])
        ]


def minimality(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: MinimalitySettings = MinimalitySettings(),
) -> Minimality:
    """Give single units back to a model without an emotion's highest units.

    Args:
        model: The model.
        task: Of continuations, in all emotions of the circuit.
        circuit: Of this model.
        means: Of its units; they take the units' place.
        settings: How many, beside what.

    Raises:
        MismatchError, DataError: As `affectlens.circuits.evidence.ablate`.
    """
    check_parts(model, task, circuit)
    items = items_of(task)
    chosen = {e: circuit.ranked(e, settings.kind)[: settings.units] for e in circuit.emotions}
    most = max(map(len, chosen.values()))
    recovered = np.full((len(chosen), most, len(task)), np.nan)
    random = np.full((len(chosen), settings.draws, len(task)), np.nan)
    run = Conditions.ready(model, mean(means), items, settings.at == "all")
    total = len(items) * sum(1 + len(own) + settings.draws for own in chosen.values())
    with progress("giving units back", total) as advance:
        for e, (emotion, units) in enumerate(chosen.items()):
            column = task.emotions.index(emotion)
            masks = _masks(circuit, emotion, units, settings)
            found = margins_under(
                run, items, [column] * len(items), {settings.kind: masks}, advance=advance
            )[..., column]
            n = 1 + len(units)
            recovered[e, : len(units)] = found[1:n] - found[0]
            random[e] = found[0] - found[n:]
    return Minimality(
        emotions=circuit.emotions,
        units=tuple(tuple((u.layer, u.index) for u in chosen[e]) for e in circuit.emotions),
        scenarios=task.scenarios,
        recovered=recovered,
        random=random,
        provenance=made_by("minimality", model, task, circuit, means, settings),
    )


def _masks(
    circuit: Circuit, emotion: str, units: Sequence[Unit], settings: MinimalitySettings
) -> Bool[Tensor, "condition layer unit"]:
    """All units, all but each, all and a random one more."""
    size = sizes_of(circuit)[settings.kind]
    whole = mask_of(circuit.n_layers, size, units)
    seed = settings.seed * 1_000_003 + circuit.emotions.index(emotion)
    generator = torch.Generator().manual_seed(seed)
    rows = [whole]
    for unit in units:
        rows.append(whole & ~mask_of(circuit.n_layers, size, [unit]))
    places = Places.of(circuit, emotion, settings.kind)
    open_layers = [unit.layer for unit in units if places.free[unit.layer].any()]
    if not open_layers:
        raise DataError(
            f"The circuit of {emotion} has all {settings.kind} in its layers, so there is "
            "none that does not belong; ask for a circuit with a smaller budget."
        )
    for draw in range(settings.draws):
        counts = [0] * circuit.n_layers
        counts[open_layers[draw % len(open_layers)]] = 1
        rows.append(whole | places.drawn(counts, generator))
    return torch.stack(rows)
