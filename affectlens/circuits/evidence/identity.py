"""Identity or salience: with a tone's units in it, does a text go on in that tone, or in any?

In texts of one tone the units of another are set to what they are there, and the model's choice
among all tones is read before and after, and with random units. Units that carry which emotion it
is make it choose theirs; units that carry only that there is one make it leave the text's own tone
for any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.evidence.ablation import Samples
from affectlens.circuits.evidence.conditions import Conditions
from affectlens.circuits.evidence.curve import ALPHA
from affectlens.circuits.evidence.draws import Places, mask_of, matched, sizes_of
from affectlens.circuits.evidence.enhancement import SET_TO, set_for
from affectlens.circuits.evidence.files import Measured
from affectlens.circuits.evidence.items import items_of
from affectlens.circuits.evidence.measure import margins_under, other_contexts
from affectlens.circuits.evidence.plan import AT, check_parts, made_by
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.progress import progress
from affectlens.core.statistics import Difference, against_draws, holm

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class IdentitySettings:
    """What is set, and beside what.

    Attributes:
        kinds: Kinds of units that are set, all of the circuit's.
        to: One of :data:`SET_TO`; ``"patch"`` needs samples (`tone_samples`).
        at: One of :data:`AT`.
        draws: Random sets of as many units in every sublayer.
        seed: Of the draws.
    """

    kinds: tuple[str, ...] = KINDS
    to: str = "mean"
    at: str = "tone"
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown("kind of unit", kind, KINDS)
        if self.to not in SET_TO:
            raise unknown("value to set units to", self.to, SET_TO)
        if self.at not in AT:
            raise unknown("place of a replacement", self.at, AT)
        if not self.kinds or self.draws < 2:
            raise DataError("Name a kind of unit, and at least two draws of random ones.")


@dataclass(frozen=True)
class Identity:
    """What the units of one emotion do to the model's choice in texts of other tones.

    Attributes:
        emotion: Whose units.
        said, said_before, said_random: Share of texts in which the model chooses it.
        own, own_before, own_random: Share in which it chooses the text's own tone.
        difference: Of ``said`` and ``said_random``, paired by text.
        p: Of it, by Holm over the emotions.
        p_left: Of ``own_random`` and ``own``, likewise: whether the text's own tone is left more
            often than with random units.
    """

    emotion: str
    said: float
    said_before: float
    said_random: float
    own: float
    own_before: float
    own_random: float
    difference: Difference
    p: float
    p_left: float

    @property
    def carries(self) -> str:
        """``identity`` if the model chooses the emotion more often than with random units;
        ``salience`` if it does not, but leaves the text's own tone more often; else ``nothing``.
        Both at level `ALPHA`.
        """
        if self.difference.mean > 0 and self.p < ALPHA:
            return "identity"
        left = self.own < min(self.own_before, self.own_random) and self.p_left < ALPHA
        return "salience" if left else "nothing"


@dataclass(frozen=True, eq=False, repr=False)
class Confusion(Measured):
    """Margins of every tone in texts of other tones, centred by the model as it is.

    Attributes:
        emotions: Whose units: the first axis.
        told: The task's emotions: the last axis.
        scenarios: Of each text.
        contexts: In which tone a text was read; -1 where it has no other.
        before, after: Of the model as it is, and with the units set.
        random: With random units set.
        provenance: What made it.
    """

    emotions: tuple[str, ...]
    told: tuple[str, ...]
    scenarios: tuple[str, ...]
    contexts: Int[Ints, "emotion text"]
    before: Float[Floats, "emotion text told"]
    after: Float[Floats, "emotion text told"]
    random: Float[Floats, "emotion draw text told"]
    provenance: Provenance
    kind: ClassVar[str] = "identity"
    arrays: ClassVar[tuple[str, ...]] = ("contexts", "before", "after", "random")
    facts: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        "emotions": tuple,
        "told": tuple,
        "scenarios": tuple,
    }

    def shares(self, which: str = "after") -> Float[Floats, "emotion told"]:
        """How often each tone is chosen, by whose units were set.

        Args:
            which: ``"before"``, ``"after"`` or ``"random"``.
        """
        found = np.zeros((len(self.emotions), len(self.told)))
        for e in range(len(self.emotions)):
            chosen = self._chosen(which, e)
            found[e] = [(chosen == t).mean() for t in range(len(self.told))]
        return found

    def results(self) -> list[Identity]:
        """Of every emotion."""
        parts = [self._parts(e) for e in range(len(self.emotions))]
        p = holm([part["difference"].p for part in parts])
        p_left = holm([part.pop("left").p for part in parts])
        return [
            Identity(p=float(p[e]), p_left=float(p_left[e]), **part) for e, part in enumerate(parts)
        ]

    def _kept(self, e: int) -> Any:
        """Texts with a context in another tone and a margin for the emotion."""
        own = self.told.index(self.emotions[e])
        return (self.contexts[e] >= 0) & ~np.isnan(self.before[e, :, own])

    def _chosen(self, which: str, e: int) -> Int[Ints, "*draw text"]:
        margins = getattr(self, which)[e][..., self._kept(e), :]
        return np.where(np.isnan(margins), -np.inf, margins).argmax(-1)

    def _parts(self, e: int) -> dict[str, Any]:
        target, kept = self.told.index(self.emotions[e]), self._kept(e)
        own = self.contexts[e, kept]
        scenarios = [s for s, keep in zip(self.scenarios, kept, strict=True) if keep]
        found: dict[str, Any] = {"emotion": self.emotions[e]}
        for name, which in (("", "after"), ("_before", "before"), ("_random", "random")):
            chosen = self._chosen(which, e)
            found["said" + name] = float((chosen == target).mean())
            found["own" + name] = float((chosen == own).mean())
        after, random = (self._chosen(which, e) for which in ("after", "random"))
        hits, stays = ((after == tone).astype(float) for tone in (target, own))
        return found | {
            "difference": against_draws(hits, (random == target).astype(float), scenarios),
            "left": against_draws(1 - stays, (random != own).astype(float), scenarios),
        }

    def brief(self) -> dict[str, object]:
        """Emotions, texts, draws, what the units' values become, what they carry, model."""
        return {
            "emotions": len(self.emotions),
            "texts": len(self.scenarios),
            "draws": self.random.shape[1],
            "to": self.provenance.parameters["to"],
            "carry": ", ".join(f"{one.emotion} {one.carries}" for one in self.results()),
            "model": self.provenance.model_name,
        }

    def table_rows(self) -> list[dict[str, object]]:
        """A row for every emotion."""
        rows = list[dict[str, object]]()
        for one in self.results():
            shown = {name: value for name, value in vars(one).items() if name != "difference"}
            rows.append({**shown, "carries": one.carries})
        return rows


def identity(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: IdentitySettings = IdentitySettings(),
    samples: Samples | None = None,
) -> Confusion:
    """Set all units of each emotion in texts of other tones, and read the model's choice.

    Args:
        model: The model.
        task: Of continuations, in all emotions of the circuit.
        circuit: Of this model.
        means: Of this model's units, in all emotions of the circuit.
        settings: What is set.
        samples: Of `tone_samples`, for patching.

    Raises:
        MismatchError, DataError: As `affectlens.circuits.evidence.ablate`.
    """
    check_parts(model, task, circuit)
    items, centre = items_of(task), task.centre(model)
    parts, contexts = list[Floats](), list[list[int]]()
    with progress("setting units", len(circuit.emotions) * len(items)) as advance:
        for e, emotion in enumerate(circuit.emotions):
            put = set_for(settings.to, means, samples, emotion, settings.seed)
            run = Conditions.ready(model, put, items, settings.at == "all")
            where = other_contexts(items, task.emotions.index(emotion))
            masks = _masks(circuit, e, settings)
            many = len(next(iter(masks.values())))
            found = margins_under(
                run, items, where, masks, advance=lambda n, m=many: advance(n // m)
            )
            parts.append(found - centre)
            contexts.append([-1 if c is None else c for c in where])
    made = np.stack(parts)
    return Confusion(
        emotions=circuit.emotions,
        told=task.emotions,
        scenarios=task.scenarios,
        contexts=np.array(contexts),
        before=made[:, 0],
        after=made[:, 1],
        random=made[:, 2:],
        provenance=made_by("identity", model, task, circuit, means, settings),
    )


def _masks(circuit: Circuit, e: int, settings: IdentitySettings) -> dict[str, Tensor]:
    """Nothing, the circuit's units, and random ones."""
    found = dict[str, Tensor]()
    emotion, seed = circuit.emotions[e], settings.seed * 1_000_003 + e
    for kind in settings.kinds:
        size = sizes_of(circuit)[kind]
        own = mask_of(circuit.n_layers, size, circuit.units(emotion, kind))[None]
        draws = matched(own, Places.of(circuit, emotion, kind), settings.draws, seed)[0]
        found[kind] = torch.cat([torch.zeros_like(own), own, draws])
    return found
