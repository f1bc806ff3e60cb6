"""Where a pack steers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.core.places import WritePoint, in_order
from affectlens.steering.classifier import GRADIENT

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack


def places_of(pack: SteeringPack) -> tuple[WritePoint, ...]:
    """Where a pack can write, in the order a forward pass reaches it."""
    return tuple(
        in_order(  # several modes may write to one place
            {
                WritePoint(layer, name.partition(".")[2])
                for name, layers in pack.layers.items()
                for layer in layers
            }
        )
    )


def vectors_at(pack: SteeringPack, places: Sequence[WritePoint]) -> Float[Tensor, "place column d"]:
    """All that requests move hidden states along at each place; zero where the pack does not write.

    One natural dose per emotion, and of low-rank maps in columns of their own what they add
    whatever the hidden state is, what they read and what they write.
    """
    found = torch.zeros(len(places), columns_of(pack), pack.d_model)
    index = {place: i for i, place in enumerate(places)}
    k = len(pack.emotions)
    for name, layers in pack.layers.items():
        if name.partition(".")[0] == GRADIENT:  # no server takes steps
            continue
        maps = pack.low_rank.get(name)  # of one name at most: a single point has them
        for i, layer in enumerate(layers):
            here = index.get(WritePoint(layer, name.partition(".")[2]))
            if here is None:  # it is another worker's
                continue
            if maps is None:
                found[here, :k] = pack.vectors[name][:, i]
            else:
                parts = (pack.vectors[name][:, i], *(
                    rows[:, i].flatten(0, 1) for rows in (maps.reads, maps.writes)
                ))  # fmt: skip
                found[here, k:] = torch.cat(parts)
    return found


def columns_of(pack: SteeringPack) -> int:
    """How many rows `vectors_at` gives at each place."""
    k = len(pack.emotions)
    return k + sum(k + 2 * k * maps.rank for maps in pack.low_rank.values())


def acts_at(pack: SteeringPack, name: str) -> Bool[Tensor, "emotion layer"]:
    """Where a mode steers an emotion: by its vector, or by its map."""
    acts = (pack.vectors[name] != 0).any(-1)
    return acts | pack.low_rank[name].acts if name in pack.low_rank else acts


def beginnings(pack: SteeringPack) -> Mapping[tuple[str, str], WritePoint | None]:
    """The first place where each mode steers each emotion; None if it steers it nowhere."""
    found: dict[tuple[str, str], list[WritePoint]] = {}
    for name in pack.vectors:
        mode, _, point = name.partition(".")
        for emotion, row in zip(pack.emotions, acts_at(pack, name).tolist(), strict=True):
            here = zip(pack.layers[name], row, strict=True)
            places = [WritePoint(layer, point) for layer, writes in here if writes]
            found.setdefault((mode, emotion), []).extend(places)
    return {key: next(iter(in_order(places)), None) for key, places in found.items()}
