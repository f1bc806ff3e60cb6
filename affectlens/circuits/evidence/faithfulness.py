"""Faithfulness: how much of what the model does is left when a circuit alone is left.

Everything outside a growing share of the units is ablated. ``f = (m(C) - m(∅)) / (m(N) - m(∅))`` of
the margin ``m`` is 0 if nothing is left and 1 for the whole model. The area under ``f`` (CPR)
rewards a circuit that does more than the model; the area of ``|1 - f|`` (CMD) does not, so neither
is shown alone.

Source: Mueller et al., "MIB" (2025), for f, CPR and CMD.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.ablation import Samples, put_for
from affectlens.circuits.evidence.conditions import Conditions
from affectlens.circuits.evidence.draws import Places
from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve
from affectlens.circuits.evidence.items import Item, items_of
from affectlens.circuits.evidence.measure import margins_under, other_contexts
from affectlens.circuits.evidence.plan import AT, check_parts, made_by
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS, there_only
from affectlens.core.errors import DataError, unknown
from affectlens.core.progress import progress

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

Floats = np.ndarray[Any, np.dtype[np.float64]]
SHARES: tuple[float, ...] = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
"""Percent of all units, as published."""


@dataclass(frozen=True)
class FaithfulnessSettings:
    """What is left, and what takes the place of the rest.

    Attributes:
        kinds: Kinds of units that are ablated outside the circuit; others are left as they are.
        shares: Percent of all units of each kind, rising, the highest scores first.
        by: ``"mean"`` or ``"resample"``.
        at: See :data:`AT`.
        draws: Random sets of as many units as the circuit has in each sublayer, and of random
            units for each share.
        seed: Of the draws.
    """

    kinds: tuple[str, ...] = KINDS
    shares: tuple[float, ...] = SHARES
    by: str = "mean"
    at: str = "tone"
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise unknown("kind of unit", kind, KINDS)
        if self.by not in ("mean", "resample"):
            raise unknown("replacement", self.by, ("mean", "resample"))
        if self.at not in AT:
            raise unknown("place of a replacement", self.at, AT)
        if not self.kinds or not self.shares or list(self.shares) != sorted(set(self.shares)):
            raise DataError(f"Shares of units must rise, not {list(self.shares)}.")
        if self.shares[0] <= 0 or self.shares[-1] > 100:
            raise DataError("Shares of units are percents above 0 and up to 100.")
        if self.draws < 2:
            raise DataError("Beside a circuit stand at least two draws of random units.")


def faithfulness(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: FaithfulnessSettings = FaithfulnessSettings(),
    samples: Samples | None = None,
) -> FaithfulnessCurve:
    """Leave growing shares of the units, the circuit's own units, and random ones.

    What a condition does to how likely a continuation is at all must not count, so each margin is
    that in the emotion's own context less the same margin in a context of the same item in another
    tone, each tone in its turn.

    Args:
        model: The model.
        task: Of continuations, in all emotions of the circuit.
        circuit: Whose scores rank all units of the model.
        means: Of this model's units.
        settings: What is left.
        samples: Of `tone_samples`, for resampling.

    Raises:
        MismatchError: If the circuit is of another model.
        DataError: If the model is being steered, the task does not fit, a sublayer has too few
            units to draw from, or samples are missing.
    """
    check_parts(model, task, circuit)
    items = items_of(task)
    names = ["whole", "empty", "circuit", "without"]
    made = list[Floats]()
    masks = [_masks(circuit, e, settings) for e in range(len(circuit.emotions))]
    total = 2 * len(items) * sum(len(next(iter(one.values()))) for one in masks)
    with progress("leaving circuits alone", total) as advance:
        for emotion, ablated in zip(circuit.emotions, masks, strict=True):
            put = put_for(settings.by, means, samples, emotion, settings.seed)
            part = Conditions.ready(model, put, items, settings.at == "all")
            made.append(contrasts(part, items, task.emotions.index(emotion), ablated, advance))
    parts = np.stack(made)
    n, k = len(names), len(settings.shares)
    drawn = parts[:, n + k :].reshape(len(circuit.emotions), 1 + k, settings.draws, len(items))
    return FaithfulnessCurve(
        emotions=circuit.emotions,
        shares=settings.shares,
        scenarios=task.scenarios,
        **{name: parts[:, i] for i, name in enumerate(names)},
        left=parts[:, n : n + k],
        random_circuits=drawn[:, 0],
        random_left=drawn[:, 1:],
        provenance=made_by("faithfulness", model, task, circuit, means, settings),
    )


def contrasts(
    conditions: Conditions,
    items: Sequence[Item],
    emotion: int,
    ablated: Mapping[str, Bool[Tensor, "condition layer unit"]],
    advance: Any = lambda _n: None,
) -> Float[Floats, "condition item"]:
    """The margin of an emotion in its own context less that in another tone's."""
    own: list[int | None] = [emotion] * len(items)
    found = [
        margins_under(conditions, items, contexts, ablated, advance=advance)[..., emotion]
        for contexts in (own, other_contexts(items, emotion))
    ]
    return found[0] - found[1]


def _masks(
    circuit: Circuit, emotion: int, settings: FaithfulnessSettings
) -> dict[str, Bool[Tensor, "condition layer unit"]]:
    """What is ablated, in the order: nothing, all, all but the circuit, the circuit, all but each
    share; then all but random units, as many draws for the circuit and for each share.
    """
    name = circuit.emotions[emotion]
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + emotion)
    found = dict[str, Tensor]()
    for kind in settings.kinds:
        places = Places.of(circuit, name, kind)
        own, there = places.own, places.own | places.free
        scores = circuit.head_scores if kind == "heads" else circuit.neuron_scores
        ranking = there_only(scores[emotion : emotion + 1], there.sum(1))[0].flatten()
        order = ranking.argsort(descending=True, stable=True)
        counts = [-(-int(there.sum()) * share // 100) for share in settings.shares]
        left, random = list[Tensor](), list[Tensor]()
        for _ in range(settings.draws):
            random.append(places.drawn(own.sum(1).tolist(), generator))
        for count in map(int, counts):
            left.append(_first(order, count, there))
            for _ in range(settings.draws):
                shuffled = there.flatten().nonzero().flatten()
                shuffled = shuffled[torch.randperm(len(shuffled), generator=generator)]
                random.append(_first(shuffled, count, there))
        outside = [there & ~one for one in (own, *left, *random)]
        found[kind] = torch.stack(
            [torch.zeros_like(there), there, outside[0], own & there, *outside[1:]]
        )
    return found


def _first(order: Tensor, count: int, there: Bool[Tensor, "layer unit"]) -> Tensor:
    mask = torch.zeros(there.numel(), dtype=torch.bool)
    mask[order[:count]] = True
    return mask.reshape(there.shape)
