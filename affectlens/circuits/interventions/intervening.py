"""Interventions in a running model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool
from torch import Tensor

from affectlens.circuits.interventions.base import Intervention
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.models.hooking.hooks import Writer, writing

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import BlockParts
    from affectlens.models.loading import LanguageModel


@contextmanager
def intervening(
    model: LanguageModel, interventions: Sequence[Intervention]
) -> Generator[None, None, None]:
    """Change values in every forward pass inside the block; nothing is left behind.

    Several at one place happen in the order given. Blocks may be nested, and stand inside steering
    or around a capture.

    Args:
        model: Any loaded model, a wrapped ``TransformerBridge`` included.
        interventions: At least one.

    Raises:
        DataError: If there is none; in a pass whose shape they do not fit.
        UnknownNameError: If the model has no such layer.
        ModelError: If a pass does not come to one of the places.
    """
    if not interventions:
        raise DataError("There is no intervention to make; give at least one.")
    at: defaultdict[WritePoint, list[Intervention]] = defaultdict(list)
    for one in interventions:
        at[one.at].append(one)

    def writer(changes: Sequence[Intervention]) -> Writer:
        def write(value: Tensor) -> Tensor:
            for change in changes:
                value = change(value)
            return value

        return write

    with writing(model.anatomy, {place: writer(changes) for place, changes in at.items()}):
        yield


def heads(
    model: LanguageModel, layer: int, chosen: Sequence[int]
) -> tuple[WritePoint, Bool[Tensor, "1 1 width"]]:
    """Place and mask of some heads of a layer: their slices at the input of ``W_O``.

    Raises:
        UnknownNameError: If there is no such layer or head.
        DataError: If the layer has no heads.
    """
    part = _block(model, layer)
    units = _units(chosen, part.n_heads, "head", part, "o_proj")
    return WritePoint(layer, "o_proj_in"), units.repeat_interleave(part.d_head)[None, None]


def neurons(
    model: LanguageModel, layer: int, chosen: Sequence[int]
) -> tuple[WritePoint, Bool[Tensor, "1 1 d_mlp"]]:
    """Place and mask of some neurons of a layer, at the input of ``W_down``.

    Raises:
        UnknownNameError: If there is no such layer or neuron.
        DataError: If the layer has no neurons, as a mixture of experts.
    """
    part = _block(model, layer)
    units = _units(chosen, part.d_mlp, "neuron", part, "down_proj")
    return WritePoint(layer, "down_proj_in"), units[None, None]


def _block(model: LanguageModel, layer: int) -> BlockParts:
    if not 0 <= layer < model.n_layers:
        raise unknown("layer", layer, [str(i) for i in range(model.n_layers)])
    return model.anatomy.blocks[layer]


def _units(
    chosen: Sequence[int], count: int, what: str, part: BlockParts, source: str
) -> Bool[Tensor, " count"]:
    if not count:
        why = part.lacks.get(source, "it has no such part")
        raise DataError(f"Layer {part.layer} has no {what}s: {why}.")
    mask = torch.zeros(count, dtype=torch.bool)
    for index in chosen:
        if not 0 <= index < count:
            raise unknown(f"{what} of layer {part.layer}", index, ["0", "…", str(count - 1)])
        mask[index] = True
    return mask
