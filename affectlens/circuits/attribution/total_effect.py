"""Exact total effects: how far a margin falls without a unit, later layers included.

One pass per unit, text and continuation is what it would take by hand. Here a text's context runs
once for all continuations (`side_by_side`), units of a layer are rows of one batch, and the layers
before it are not run again (`resuming`). Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.attribution.stand_ins import SUBLAYER_POINTS, UNIT_POINTS, StandIns
from affectlens.circuits.interventions import Intervention, intervening, replace
from affectlens.circuits.resuming import Recorded, record
from affectlens.circuits.side_by_side import prepare
from affectlens.circuits.units import unit_sizes
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel

EFFECTS: tuple[str, ...] = ("heads", "neurons", "sublayers")
"""What can be taken out; sublayers are attention and MLP, in this order."""


@torch.no_grad()
def total_effects(
    model: LanguageModel,
    task: Task,
    means: UnitMeans,
    emotions: Sequence[str],
    *,
    kind: str = "heads",
    units: Bool[Tensor, "layer unit"] | None = None,
    by: str = "mean",
    max_tokens: int = 4096,
) -> Float[Tensor, "emotion layer unit"]:
    """Fall of each emotion's margin, mean over texts, if a unit's values were replaced everywhere.

    Args:
        model: The model.
        task: Texts; of the emotions.
        means: What takes a unit's place: the mean over emotions.
        emotions: Of the task.
        kind: One of :data:`EFFECTS`.
        units: Which; default: all. NaN is returned for the others, and where there is no unit.
        by: ``"mean"`` or ``"zero"``.
        max_tokens: Tokens at once; bounds the memory.

    Returns:
        In the task's unit; positive where the emotion's margin needs the unit.

    Raises:
        DataError: If no unit is chosen, the mask is of another shape, or the model is steered.
        UnknownNameError: If a kind or replacement does not exist.
    """
    if kind not in EFFECTS:
        raise unknown("kind of unit", kind, EFFECTS)
    shape = (model.n_layers, _size(model, kind))
    if units is not None and tuple(units.shape) != shape:
        raise DataError(
            f"The mask of {kind} is {list(units.shape)}, the model has {list(shape)} of them."
        )
    stands = StandIns.of(model, means, by)
    single = [_single(model, kind, stands, layer, unit) for layer, unit in np.ndindex(*shape)]
    wanted = [True] * len(single) if units is None else units.flatten().tolist()
    plan = [(i, one) for i, one in enumerate(single) if one is not None and wanted[i]]
    if not plan:
        raise DataError(f"There are no {kind} to take out; choose at least one that the model has.")
    found = torch.full((len(emotions), len(single)), torch.nan)
    for e, emotion in enumerate(emotions):
        falls = _falls(model, task, emotion, [[one] for _, one in plan], max_tokens)
        found[e, [i for i, _ in plan]] = falls
    return found.unflatten(1, shape)


@torch.no_grad()
def set_effects(
    model: LanguageModel,
    task: Task,
    means: UnitMeans,
    emotion: str,
    *,
    kind: str,
    sets: Sequence[Bool[Tensor, "layer unit"]],
    max_tokens: int = 4096,
) -> Float[Tensor, " set"]:
    """The same for sets of units of one emotion, each taken out together, by their means.

    Raises:
        DataError: If a set is empty.
        UnknownNameError: If there is no such kind.
    """
    return joint_effects(
        model, task, means, emotion, [{kind: units} for units in sets], max_tokens=max_tokens
    )


@torch.no_grad()
def joint_effects(
    model: LanguageModel,
    task: Task,
    means: UnitMeans,
    emotion: str,
    sets: Sequence[Mapping[str, Bool[Tensor, "layer unit"]]],
    *,
    max_tokens: int = 4096,
) -> Float[Tensor, " set"]:
    """The same for sets of units of several kinds.

    Raises:
        DataError: If a set is empty.
        UnknownNameError: If there is no such kind.
    """
    stands = StandIns.of(model, means)
    conditions = list[list[_Change]]()
    for units in sets:
        for kind in units:
            if kind not in EFFECTS:
                raise unknown("kind of unit", kind, EFFECTS)
        each = [
            _single(model, kind, stands, *place)
            for kind, mask in units.items()
            for place in mask.nonzero().tolist()
        ]
        there = [one for one in each if one is not None]
        if not there:
            kinds = " or ".join(units)
            raise DataError(f"A set holds no {kinds} that the model has; choose at least one.")
        conditions.append(_joined(there))
    return _falls(model, task, emotion, conditions, max_tokens)


_Change = tuple[WritePoint, Tensor, Tensor]
"""Place, what takes the place of its values, and where: ``[1, 1, width]``."""


def _falls(
    model: LanguageModel,
    task: Task,
    emotion: str,
    conditions: Sequence[Sequence[_Change]],
    max_tokens: int,
) -> Float[Tensor, " condition"]:
    """Mean fall of an emotion's margin under each of many conditions."""
    refuse_listeners(model.hf, "Total effects")
    texts = [text for text in task.texts(emotion) if text]
    total = torch.zeros(len(conditions))
    with progress(f"total effects, {emotion}", len(texts)) as advance:
        for runs in prepare(model, task, emotion, texts):
            for one in runs:
                total += _of_runs(record(model, one), conditions, max_tokens)
            advance(1)
    return total / len(texts)


def _of_runs(
    kept: Recorded, conditions: Sequence[Sequence[_Change]], max_tokens: int
) -> Float[Tensor, " condition"]:
    """What one batch of rows loses; conditions side by side, as many at once as fit."""
    runs, falls = kept.runs, list[float]()
    most = max(1, max_tokens // runs.tokens)
    most = most if runs.most is None else min(most, runs.most)
    for start in range(0, len(conditions), most):
        chunk = conditions[start : start + most]
        by_place: dict[WritePoint, tuple[Tensor, Tensor]] = {}
        for i, changes in enumerate(chunk):
            rows = torch.zeros(len(chunk), runs.rows, 1, 1, dtype=torch.bool)
            rows[i] = True
            for at, value, mask in changes:
                where = rows.flatten(0, 1) & mask
                before = by_place.get(at)
                by_place[at] = (value, where if before is None else before[1] | where)
        made = [Intervention(at, replace(v), where) for at, (v, where) in by_place.items()]
        layer = min(at.layer for at in by_place)
        with kept.before(layer, len(chunk)), intervening(kept.model, made):
            falls += [kept.value - value for value in runs(len(chunk)).tolist()]
    return torch.tensor(falls)


def _single(
    model: LanguageModel, kind: str, stands: StandIns, layer: int, unit: int
) -> _Change | None:
    """One unit's change; None where there is no such unit."""
    part = model.anatomy.blocks[layer]
    point = SUBLAYER_POINTS[unit] if kind == "sublayers" else UNIT_POINTS[kind]
    at = WritePoint(layer, point)
    size = {"heads": part.n_heads, "neurons": part.d_mlp, "sublayers": 2}[kind]
    if at not in stands.values or unit >= size:
        return None
    value = stands.values[at]
    mask = torch.ones(1, 1, value.shape[-1], dtype=torch.bool)
    if kind != "sublayers":
        width = part.d_head if kind == "heads" else 1
        mask = torch.zeros_like(mask)
        mask[..., unit * width : (unit + 1) * width] = True
    return at, value, mask


def _joined(changes: Sequence[_Change]) -> list[_Change]:
    """One change per place."""
    by_place: dict[WritePoint, _Change] = {}
    for at, value, mask in changes:
        before = by_place.get(at)
        by_place[at] = (at, value, mask if before is None else before[2] | mask)
    return list(by_place.values())


def _size(model: LanguageModel, kind: str) -> int:
    if kind == "sublayers":
        return 2
    return int(unit_sizes(model.anatomy)[:, ("heads", "neurons").index(kind)].max())
