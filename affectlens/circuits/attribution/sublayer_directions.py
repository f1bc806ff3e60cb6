"""Which direction a sublayer is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.core.places import Site

if TYPE_CHECKING:
    from affectlens.geometry.directions import Directions
    from affectlens.models.anatomy.anatomy import Anatomy


@dataclass(frozen=True, eq=False)
class SublayerDirections:
    """Unit directions per sublayer.

    Attributes:
        emotions: Order of the first axis.
        vectors: ``[emotion, layer, 2, d_model]``, (attention, MLP) on the third axis.
        attn_site: Where attention's directions come from: ``resid_mid`` or ``resid_post``.
    """

    emotions: tuple[str, ...]
    vectors: Float[Tensor, "emotion layer 2 d_model"]
    attn_site: str


def sublayer_directions(directions: Directions, anatomy: Anatomy) -> SublayerDirections:
    """Directions of the residual stream right after each sublayer.

    The MLP is scored on ``resid_post`` of its own layer; attention on ``resid_mid`` where the
    directions have it and the family has it (sequential blocks), else on ``resid_post`` too.

    Raises:
        DataError: If a layer is missing or the width is another model's.
    """
    layers = range(anatomy.n_layers)
    have = set(directions.sites)
    missing = [layer for layer in layers if Site(layer, "resid_post") not in have]
    if missing:
        raise DataError(
            f"The directions lack resid_post at layer {missing[0]}; capture sites='resid_post' "
            "(all layers) before looking for a circuit."
        )
    if directions.vectors.shape[-1] != anatomy.d_model:
        raise DataError(
            f"The directions have width {directions.vectors.shape[-1]}, the model "
            f"{anatomy.d_model}; make them for this model."
        )
    mid = anatomy.has_resid_mid and all(Site(layer, "resid_mid") in have for layer in layers)
    attn_site = "resid_mid" if mid else "resid_post"
    index = {site: i for i, site in enumerate(directions.sites)}
    picked = [
        torch.stack([directions.vectors[index[Site(layer, kind)]] for layer in layers], dim=1)
        for kind in (attn_site, "resid_post")
    ]
    vectors = torch.stack(picked, dim=2).float()
    return SublayerDirections(tuple(directions.emotions), vectors, attn_site)
