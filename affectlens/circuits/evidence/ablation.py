"""Ablation: does a tone carry over less when the circuit's units say nothing of the text?

For growing numbers of a circuit's units, the highest scores first, their values are replaced by
their mean, and the margins of a task are measured again; beside it, the same with as many random
units of the same sublayers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.evidence.curve import AblationCurve
from affectlens.circuits.interventions import Change, Intervention, intervening, replace, zero
from affectlens.circuits.tasks.base import Task
from affectlens.circuits.units import KINDS, Unit
from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

BY: tuple[str, ...] = ("mean", "zero")
"""What takes the place of a unit's values: its mean over all tones, or nothing."""

_POINTS = {"neurons": "down_proj_in", "heads": "o_proj_in"}


@dataclass(frozen=True)
class AblationSettings:
    """What is taken out, and beside what.

    Attributes:
        kind: ``"neurons"`` or ``"heads"``.
        counts: How many units, rising; at most as many as the circuit has.
        by: One of :data:`BY`.
        draws: Random sets of units for each count, in the same sublayers, none of them the
            circuit's.
        seed: Of the draws.
    """

    kind: str = "neurons"
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    by: str = "mean"
    draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of unit", self.kind, KINDS)
        if self.by not in BY:
            raise unknown("replacement", self.by, BY)
        if not self.counts or min(self.counts) < 1 or list(self.counts) != sorted(set(self.counts)):
            raise DataError(f"Counts of units must rise from 1 on, not {list(self.counts)}.")
        if self.draws < 2:
            raise DataError("Beside a circuit stand at least two draws of random units.")


def ablate(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: AblationSettings = AblationSettings(),
) -> AblationCurve:
    """Take out the units of each emotion, and as many random ones.

    Margins under an ablation are centred by the model as it is, so that random units need the
    emotion's own context alone. The replacement happens at every token.

    Args:
        model: The model.
        task: Of texts that gave neither circuit nor means, in all of its emotions.
        circuit: Of this model.
        means: Of this model's units, of any texts of the same kind (`unit_means`).
        settings: What is taken out.

    Raises:
        MismatchError: If the circuit is of another model.
        DataError: If the model is being steered, an emotion of the circuit is none of the task's,
            a circuit has fewer units than the largest count, or a sublayer too few others to draw
            from.
    """
    refuse_listeners(model.hf, "Evidence for a circuit")
    circuit.provenance.require_model(model.fingerprint, model.name)
    missing = sorted(set(circuit.emotions) - set(task.emotions))
    if missing:
        raise DataError(f"The task has no texts for {', '.join(missing)} of the circuit.")
    unit_values = means.mean(settings.kind).mean(0)
    width = unit_values.shape[-1]
    size = width // circuit.n_heads if settings.kind == "heads" else 1
    centre = task.centre(model)
    base = task.margins(model, centre=centre)
    plan = {e: list(_sets(circuit, e, width // size, settings)) for e in circuit.emotions}
    shape = (len(circuit.emotions), len(settings.counts))
    drops = np.full((*shape, len(task), len(task.emotions)), np.nan)
    random_drops = np.full((*shape, settings.draws, len(task)), np.nan)
    with progress("ablating", sum(map(len, plan.values()))) as advance:
        for e, emotion in enumerate(circuit.emotions):
            own = task.emotions.index(emotion)
            for k, draw, mask in plan[emotion]:
                wide = mask.repeat_interleave(size, dim=-1)
                changes = [
                    Intervention(
                        WritePoint(layer, _POINTS[settings.kind]),
                        _change(settings.by, unit_values[layer]),
                        wide[layer][None, None],
                    )
                    for layer in range(model.n_layers)
                    if bool(wide[layer].any())
                ]
                with intervening(model, changes):
                    now = task.margins(model, None if draw is None else [emotion], centre)
                drop = base - now
                if draw is None:
                    drops[e, k] = drop
                else:
                    random_drops[e, k, draw] = drop[:, own]
                advance(1)
    return AblationCurve(
        emotions=circuit.emotions,
        told=task.emotions,
        counts=settings.counts,
        scenarios=task.scenarios,
        margins=base,
        drops=drops,
        random_drops=random_drops,
        provenance=Provenance(
            kind="ablation",
            model=model.fingerprint,
            model_name=model.name,
            corpus=task.fingerprint,
            parameters=asdict(settings)
            | {"task": task.name, "means": fingerprint(unit_values.numpy().tobytes())},
            inputs={"circuit": circuit.provenance.fingerprint},
        ),
    )


def _change(by: str, values: Float[Tensor, " width"]) -> Change:
    return zero() if by == "zero" else replace(values)


def _sets(
    circuit: Circuit, emotion: str, size: int, settings: AblationSettings
) -> Iterator[tuple[int, int | None, Bool[Tensor, "layer unit"]]]:
    """Index of the count, number of the draw (None: the circuit's own), and the units."""
    ranked = sorted(circuit.units(emotion, settings.kind), key=lambda unit: -unit.score)
    if len(ranked) < settings.counts[-1]:
        raise DataError(
            f"The circuit has {len(ranked)} {settings.kind} for {emotion}, not "
            f"{settings.counts[-1]}; ask for fewer, or find a circuit with a larger budget."
        )
    there = circuit.sizes[:, KINDS.index(settings.kind)]
    taken = _mask(circuit.n_layers, size, ranked) | (torch.arange(size) >= there[:, None])
    seed = settings.seed * 1_000_003 + circuit.emotions.index(emotion)
    generator = torch.Generator().manual_seed(seed)
    for k, count in enumerate(settings.counts):
        top = _mask(circuit.n_layers, size, ranked[:count])
        yield k, None, top
        for draw in range(settings.draws):
            yield k, draw, _others(top.sum(1).tolist(), taken, generator)


def _mask(n_layers: int, size: int, units: Sequence[Unit]) -> Bool[Tensor, "layer unit"]:
    mask = torch.zeros(n_layers, size, dtype=torch.bool)
    mask[[u.layer for u in units], [u.index for u in units]] = True
    return mask


def _others(
    counts: Sequence[int], taken: Bool[Tensor, "layer unit"], generator: torch.Generator
) -> Bool[Tensor, "layer unit"]:
    """So many units of each layer, none of those taken."""
    mask = torch.zeros_like(taken)
    for layer, count in enumerate(counts):
        free = (~taken[layer]).nonzero().flatten()
        if len(free) < count:
            raise DataError(
                f"Layer {layer} has only {len(free)} units outside the circuit, too few to draw "
                f"{count} random ones; ask for fewer units."
            )
        mask[layer, free[torch.randperm(len(free), generator=generator)[:count]]] = True
    return mask
