"""Where a pack steers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.places import WritePoint, in_order

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def places_of(pack: SteeringPack) -> tuple[WritePoint, ...]:
    """Where a pack can write, in the order a forward pass reaches it."""
    return tuple(
        in_order(
            WritePoint(layer, name.partition(".")[2])
            for name, layers in pack.layers.items()
            for layer in layers
        )
    )


def vectors_at(
    pack: SteeringPack, places: Sequence[WritePoint]
) -> Float[Tensor, "place emotion d"]:
    """One natural dose per emotion at each place; zero where the pack does not write."""
    found = torch.zeros(len(places), len(pack.emotions), pack.d_model)
    index = {place: i for i, place in enumerate(places)}
    for name, layers in pack.layers.items():
        for i, layer in enumerate(layers):
            here = index.get(WritePoint(layer, name.partition(".")[2]))
            if here is not None:  # else it is another worker's
                found[here] = pack.vectors[name][:, i]
    return found


def beginnings(pack: SteeringPack) -> Mapping[tuple[str, str], WritePoint | None]:
    """The first place where each mode steers each emotion; None if it steers it nowhere."""
    found: dict[tuple[str, str], list[WritePoint]] = {}
    for name, vectors in pack.vectors.items():
        mode, _, point = name.partition(".")
        acts = (vectors != 0).any(-1).tolist()
        for emotion, row in zip(pack.emotions, acts, strict=True):
            here = zip(pack.layers[name], row, strict=True)
            places = [WritePoint(layer, point) for layer, writes in here if writes]
            found.setdefault((mode, emotion), []).extend(places)
    return {key: next(iter(in_order(places)), None) for key, places in found.items()}
