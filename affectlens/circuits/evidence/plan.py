"""Curves over growing numbers of units: which conditions each text is run under, and running them.

A circuit's highest units stand beside as many random ones of the same sublayers, and beside the
units of the other emotions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from affectlens.circuits.evidence.conditions import Conditions, Replacement
from affectlens.circuits.evidence.draws import Places, highest, matched
from affectlens.circuits.evidence.items import Item, items_of
from affectlens.circuits.evidence.measure import margins_under
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.errors import DataError, unknown
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
AT: tuple[str, ...] = ("tone", "all")
"""Where values are replaced: from the first token on in which the tones of an item differ (what
comes before is the same in all and says nothing of them), or at every token."""


@dataclass(frozen=True)
class CurveSettings:
    """What is changed, and beside what.

    Attributes:
        kind: ``"neurons"`` or ``"heads"``.
        counts: How many units, rising; at most as many as the circuit has.
        at: One of :data:`AT`.
        draws: Random sets of units for each count, in the same sublayers, none of them the
            circuit's.
        per_text: How many of the draws each text is run with, in turn; None: all. The draws are
            then compared with the circuit on the texts that each of them has.
        others_per_text: Of how many other emotions the units are changed in each text, in turn;
            None: all. What is said of specificity rests on these.
        seed: Of the draws.
    """

    kind: str = "neurons"
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    at: str = "tone"
    draws: int = 20
    per_text: int | None = None
    others_per_text: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of unit", self.kind, KINDS)
        if self.at not in AT:
            raise unknown("place of a replacement", self.at, AT)
        if not self.counts or min(self.counts) < 1 or list(self.counts) != sorted(set(self.counts)):
            raise DataError(f"Counts of units must rise from 1 on, not {list(self.counts)}.")
        if self.draws < 2:
            raise DataError("Beside a circuit stand at least two draws of random units.")
        for name in ("per_text", "others_per_text"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise DataError(f"{name} counts from 1 on; None takes all.")


@dataclass(frozen=True)
class Trial:
    """What happens to the units in the test of one emotion.

    Attributes:
        put: What takes their values' place.
        contexts: Of each item the emotion whose context is read.
    """

    put: Replacement
    contexts: Sequence[int | None]


def run_curve(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    settings: CurveSettings,
    trial: Callable[[list[Item], int], Trial],
    title: str,
) -> tuple[Float[Floats, "emotion count text told"], Float[Floats, "emotion count draw text"]]:
    """How far each emotion's margin rises in its trial, under the units of each, and random ones.

    Args:
        model: The model.
        task: Of continuations.
        circuit: Whose units.
        settings: How many, and beside what.
        trial: Of one of the task's emotions, by number.
        title: Of the progress.

    Raises:
        DataError: See `check_parts`, `highest` and `matched`.
    """
    check_parts(model, task, circuit)
    items = items_of(task)
    sets = {e: highest(circuit, e, settings.kind, settings.counts) for e in circuit.emotions}
    random = {
        e: matched(
            sets[e],
            Places.of(circuit, e, settings.kind),
            settings.draws,
            settings.seed * 1_000_003 + i,
        )
        for i, e in enumerate(circuit.emotions)
    }
    plan = _Plan(task, circuit.emotions, settings)
    changes = np.full((*plan.shape, len(task), len(task.emotions)), np.nan)
    random_changes = np.full((*plan.shape, settings.draws, len(task)), np.nan)
    own = torch.cat(list(sets.values()))
    unchanged = torch.zeros_like(own[:1])
    with progress(title, plan.size) as advance:
        for c, emotion in enumerate(task.emotions):
            asked = trial(items, c)
            run = Conditions.ready(model, asked.put, items, settings.at == "all")
            draws = random[emotion].flatten(0, 1) if emotion in random else own[:0]
            found = margins_under(
                run,
                items,
                asked.contexts,
                {settings.kind: torch.cat([unchanged, own, draws])},
                wanted=np.concatenate([np.ones((len(items), 1), bool), plan.wanted(c)], axis=1),
                advance=advance,
            )[..., c]
            rises = found[1:] - found[:1]
            changes[..., c] = rises[: len(own)].reshape(*plan.shape, len(task))
            if emotion in random:
                e = circuit.emotions.index(emotion)
                random_changes[e] = rises[len(own) :].reshape(*random_changes.shape[1:])
    return changes, random_changes


def check_parts(model: LanguageModel, task: Task, circuit: Circuit) -> None:
    """Refuse what cannot be tested.

    Raises:
        MismatchError: If the circuit is of another model.
        DataError: If the model is being steered, or the task lacks an emotion of the circuit.
    """
    refuse_listeners(model.hf, "Evidence for a circuit")
    circuit.provenance.require_model(model.fingerprint, model.name)
    missing = sorted(set(circuit.emotions) - set(task.emotions))
    if missing:
        raise DataError(f"The task has no texts for {', '.join(missing)} of the circuit.")


def made_by(
    kind: str,
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: Any,
) -> Provenance:
    """Of a test of a circuit."""
    values = [means.mean(of).numpy().tobytes() for of in KINDS]
    return Provenance(
        kind=kind,
        model=model.fingerprint,
        model_name=model.name,
        corpus=task.fingerprint,
        parameters=asdict(settings) | {"task": task.name, "means": fingerprint(*values)},
        inputs={"circuit": circuit.provenance.fingerprint, "units": circuit.units_fingerprint},
    )


@dataclass(frozen=True)
class _Plan:
    """Which conditions each text is run under."""

    task: Task
    emotions: tuple[str, ...]
    settings: CurveSettings

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.emotions), len(self.settings.counts)

    @property
    def size(self) -> int:
        """Conditions of texts in all, the unchanged model among them."""
        told = range(len(self.task.emotions))
        return sum(int(self.wanted(c).sum()) + len(self.task) for c in told)

    def wanted(self, context: int) -> Bool[Bools, "item condition"]:
        """In the context of one tone: the sets of all emotions, then that tone's draws."""
        asked, items = self.settings, range(len(self.task))
        told, counts = self.task.emotions[context], len(asked.counts)
        others = [e for e, name in enumerate(self.emotions) if name != told]
        sets = np.zeros((len(items), *self.shape), dtype=bool)
        draws = np.zeros((len(items), counts, asked.draws), dtype=bool)
        for i in items:
            for e in _in_turn(others, i, asked.others_per_text):
                sets[i, e] = True
            if told in self.emotions:
                sets[i, self.emotions.index(told)] = True
                for k in range(counts):
                    turn = i * (asked.per_text or 0) + k
                    chosen = range(asked.draws)
                    draws[i, k, _in_turn(list(chosen), turn, asked.per_text)] = True
        parts = [sets.reshape(len(items), -1)]
        if told in self.emotions:
            parts.append(draws.reshape(len(items), -1))
        return np.concatenate(parts, axis=1)


def _in_turn(members: list[int], turn: int, count: int | None) -> list[int]:
    """So many of them, beginning at their turn."""
    many = len(members) if count is None else min(count, len(members))
    return [members[(turn + j) % len(members)] for j in range(many)]
