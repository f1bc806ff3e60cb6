"""Ablation: does a tone carry over less when the circuit's units say nothing of the text?

For growing numbers of a circuit's units, the highest scores first, their values are replaced, and
the margins of a task are measured again; beside it, the same with as many random units of the same
sublayers, and with the units of the other emotions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.conditions import Conditions, Replacement
from affectlens.circuits.evidence.curve import AblationCurve
from affectlens.circuits.evidence.draws import highest, matched, taken
from affectlens.circuits.evidence.items import Item, items_of
from affectlens.circuits.evidence.measure import margins_under
from affectlens.circuits.evidence.replacements import BY, mean, resample, zero
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
class AblationSettings:
    """What is taken out, and beside what.

    Attributes:
        kind: ``"neurons"`` or ``"heads"``.
        counts: How many units, rising; at most as many as the circuit has.
        by: One of :data:`BY`; ``"resample"`` needs samples (`tone_samples`).
        at: One of :data:`AT`.
        draws: Random sets of units for each count, in the same sublayers, none of them the
            circuit's.
        per_text: How many of the draws each text is run with, in turn; None: all. The draws are
            then compared with the circuit on the texts that each of them has.
        others_per_text: Of how many other emotions' units each text is run without, in turn; None:
            all. What is said of specificity rests on these.
        seed: Of the draws.
    """

    kind: str = "neurons"
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    by: str = "mean"
    at: str = "tone"
    draws: int = 20
    per_text: int | None = None
    others_per_text: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of unit", self.kind, KINDS)
        if self.by not in BY:
            raise unknown("replacement", self.by, BY)
        if self.at not in AT:
            raise unknown("place of a replacement", self.at, AT)
        if not self.counts or min(self.counts) < 1 or list(self.counts) != sorted(set(self.counts)):
            raise DataError(f"Counts of units must rise from 1 on, not {list(self.counts)}.")
        if self.draws < 2:
            raise DataError("Beside a circuit stand at least two draws of random units.")
        for name in ("per_text", "others_per_text"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise DataError(f"{name} counts from 1 on; None takes all.")


def ablate(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: AblationSettings = AblationSettings(),
    samples: Mapping[str, Mapping[str, Float[Tensor, "sample layer width"]]] | None = None,
) -> AblationCurve:
    """Take out the units of each emotion, and as many random ones.

    Margins under an ablation are centred by the model as it is, so that a fall is that of the
    weighted log-probabilities in the emotion's own context alone.

    Args:
        model: The model.
        task: Of texts that gave neither circuit nor means, in all of its emotions.
        circuit: Of this model.
        means: Of this model's units, of any texts of the same kind (`unit_means`).
        settings: What is taken out.
        samples: Of `tone_samples`, for resampling.

    Raises:
        MismatchError: If the circuit is of another model.
        DataError: If the model is being steered, an emotion of the circuit is none of the task's,
            a circuit has fewer units than the largest count, a sublayer too few others to draw
            from, or samples are missing.
    """
    check_parts(model, task, circuit)
    base = task.margins(model)
    items = items_of(task)
    sets = {e: highest(circuit, e, settings.kind, settings.counts) for e in circuit.emotions}
    random = {
        e: matched(
            sets[e],
            taken(circuit, e, settings.kind),
            settings.draws,
            settings.seed * 1_000_003 + i,
        )
        for i, e in enumerate(circuit.emotions)
    }
    plan = _Plan(task, circuit.emotions, settings)
    drops = np.full((*plan.shape, len(task), len(task.emotions)), np.nan)
    random_drops = np.full((*plan.shape, settings.draws, len(task)), np.nan)
    own_sets = torch.cat(list(sets.values()))
    with progress("ablating", plan.size) as advance:
        for c, emotion in enumerate(task.emotions):
            part = Conditions.ready(
                model, _put(settings, means, samples, emotion), items, settings.at == "all"
            )
            draws = random[emotion].flatten(0, 1) if emotion in random else own_sets[:0]
            fallen = _falls(part, items, c, settings.kind, torch.cat([own_sets, draws]),
                            plan.wanted(c), advance)  # fmt: skip
            own, rest = np.split(fallen, [len(own_sets)])
            drops[..., c] = own.reshape(*plan.shape, len(task))
            if emotion in random:
                e = circuit.emotions.index(emotion)
                random_drops[e] = rest.reshape(*random_drops.shape[1:])
    return AblationCurve(
        emotions=circuit.emotions,
        told=task.emotions,
        counts=settings.counts,
        scenarios=task.scenarios,
        margins=base,
        drops=drops,
        random_drops=random_drops,
        provenance=made_by("ablation", model, task, circuit, means, settings),
    )


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


def _put(
    settings: AblationSettings,
    means: UnitMeans,
    samples: Mapping[str, Mapping[str, Tensor]] | None,
    emotion: str,
) -> Replacement:
    if settings.by != "resample":
        return zero(means) if settings.by == "zero" else mean(means)
    if samples is None:
        raise DataError("Resampling needs values of other texts; make them with `tone_samples`.")
    return resample(samples, emotion, settings.seed)


def _falls(
    conditions: Conditions,
    items: Sequence[Item],
    context: int,
    kind: str,
    units: Bool[Tensor, "condition layer unit"],
    wanted: Bool[Bools, "item condition"],
    advance: Callable[[int], None],
) -> Float[Floats, "condition item"]:
    """How far a tone's own margin falls under each condition, beside the unchanged model."""
    masks = {kind: torch.cat([torch.zeros_like(units[:1]), units])}
    first = np.ones((len(items), 1), dtype=bool)
    contexts = [context] * len(items)
    wanted = np.concatenate([first, wanted], axis=1)
    found = margins_under(conditions, items, contexts, masks, wanted=wanted, advance=advance)
    return found[:1, :, context] - found[1:, :, context]


@dataclass(frozen=True)
class _Plan:
    """Which conditions each text is run under."""

    task: Task
    emotions: tuple[str, ...]
    settings: AblationSettings

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
