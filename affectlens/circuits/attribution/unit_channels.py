"""Numbers of the channels of units, added up by unit: of a head all its channels, of a neuron one.

Tensors over all layers are as wide as the widest layer; what a layer lacks is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.attribution.scores import head_sums
from affectlens.circuits.attribution.stand_ins import UNIT_POINTS
from affectlens.core.places import WritePoint

if TYPE_CHECKING:
    from affectlens.models.anatomy.anatomy import Anatomy


def units_there(anatomy: Anatomy) -> dict[str, Bool[Tensor, "layer unit"]]:
    """Which heads and which neurons of dense MLPs there are."""
    blocks = anatomy.blocks
    sizes = {"heads": [p.n_heads for p in blocks], "neurons": [p.d_mlp for p in blocks]}
    wide = {"heads": sizes["heads"], "neurons": [p.n_neurons for p in blocks]}
    return {
        kind: torch.arange(max(wide[kind]))[None] < torch.tensor(own)[:, None]
        for kind, own in sizes.items()
    }


def by_unit(
    anatomy: Anatomy, channels: Mapping[WritePoint, Float[Tensor, "*of width"]]
) -> dict[str, Float[Tensor, "*of layer unit"]]:
    """Sums of heads and neurons; places that hold no units are passed over."""
    of = next((values.shape[:-1] for values in channels.values()), torch.Size())
    found = {kind: torch.zeros(*of, *there.shape) for kind, there in units_there(anatomy).items()}
    for at, values in channels.items():
        part = anatomy.blocks[at.layer]
        if at.point == UNIT_POINTS["heads"]:
            sums = head_sums(values, part.n_heads, part.d_head)
            found["heads"][..., at.layer, : part.n_heads] = sums
        elif at.point == UNIT_POINTS["neurons"]:
            found["neurons"][..., at.layer, : part.d_mlp] = values
    return found


def by_channel(
    anatomy: Anatomy, units: Mapping[str, Float[Tensor, "layer unit"]]
) -> dict[WritePoint, Float[Tensor, " width"]]:
    """The number of each unit at every one of its channels."""
    found: dict[WritePoint, Tensor] = {}
    for part in anatomy.blocks:
        if part.n_heads:
            own = units["heads"][part.layer, : part.n_heads].repeat_interleave(part.d_head)
            found[WritePoint(part.layer, UNIT_POINTS["heads"])] = own
        if part.d_mlp:
            own = units["neurons"][part.layer, : part.d_mlp]
            found[WritePoint(part.layer, UNIT_POINTS["neurons"])] = own
    return found
