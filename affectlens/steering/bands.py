"""Steering some of a pack's layers: which bands there are, and a pack that leaves the rest out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from affectlens.core import DataError
from affectlens.core.places import layer_range
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.low_rank import LOW_RANK
from affectlens.steering.pack_places import acts_at

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

BANDS = ("all", "early", "middle", "late")
"""Names of bands: all layers that a mode steers, and thirds of them."""


def band_layers(pack: SteeringPack, mode: str, band: str) -> tuple[int, ...]:
    """The layers of a band, of those that the pack steers in a mode.

    Args:
        pack: The pack.
        mode: One of its modes.
        band: One of `BANDS`, a layer, or a range such as ``10-14``.

    Raises:
        UnknownNameError: If there is no such band or layer.
        DataError: If none of its layers is steered.
    """
    steered = _steered(pack, mode)
    third = len(steered) / 3
    match band:
        case "all":
            return steered
        case "early" | "middle" | "late":
            part = ("early", "middle", "late").index(band)
            found = steered[round(part * third) : round((part + 1) * third)]
        case _:
            asked = set(layer_range(band, pack.n_layers, *BANDS))
            found = tuple(layer for layer in steered if layer in asked)
    if not found:
        raise DataError(
            f"The band {band} holds none of the layers {steered[0]} to {steered[-1]} that the pack "
            f"steers in mode {mode}."
        )
    return found


def within(pack: SteeringPack, mode: str, emotion: str, layers: Sequence[int]) -> SteeringPack:
    """A pack that steers one emotion at some layers only; its doses have to be measured again.

    Args:
        pack: The pack.
        mode: Whose vectors are changed.
        emotion: The same.
        layers: Those that stay.
    """
    index, keep = pack.emotions.index(emotion), set(layers)
    vectors, maps = dict(pack.vectors), dict(pack.low_rank)
    for point in pack.points(mode):
        name = f"{mode}.{point}"
        left_out = torch.tensor([layer not in keep for layer in pack.layers[name]])
        if name in maps:
            stays = torch.ones(len(pack.emotions), len(left_out), dtype=torch.bool)
            stays[index] = ~left_out
            maps[name] = maps[name].where(stays)
        changed = vectors[name].clone()
        changed[index, left_out] = 0
        vectors[name] = changed
    responses = {
        unit: {
            m: {e: r for e, r in found.items() if (m, e) != (mode, emotion)}
            for m, found in modes.items()
        }
        for unit, modes in pack.responses.items()
    }
    return replace(pack, vectors=vectors, low_rank=maps, responses=responses)


def length_of(pack: SteeringPack, mode: str, emotion: str, layers: Sequence[int]) -> float:
    """Sum over places of the length of one natural dose.

    Where what is added depends on the stream there is no such length: 1 if it acts at one of these
    layers, else 0.
    """
    index, keep = pack.emotions.index(emotion), set(layers)
    if mode in (LOW_RANK, GRADIENT):
        return float(
            any(
                acts and layer in keep
                for name in (f"{mode}.{point}" for point in pack.points(mode))
                for layer, acts in zip(
                    pack.layers[name], acts_at(pack, name)[index].tolist(), strict=True
                )
            )
        )
    return sum(
        float(pack.vectors[f"{mode}.{point}"][index, i].norm())
        for point in pack.points(mode)
        for i, layer in enumerate(pack.layers[f"{mode}.{point}"])
        if layer in keep
    )


def relative_size(
    pack: SteeringPack, mode: str, emotion: str, layers: Sequence[int], strength: float
) -> float | None:
    """Largest length of what is added at a layer, relative to the residual stream's there.

    ``max_l ‖strength · Σ v_l‖ / (RMS_l √d)``, over the points of a layer together; None if the pack
    does not know the stream's size, or what the mode adds depends on the stream.
    """
    if pack.rms is None or mode in (LOW_RANK, GRADIENT):
        return None
    index, sums = pack.emotions.index(emotion), dict.fromkeys(layers, torch.zeros(pack.d_model))
    for point in pack.points(mode):
        name = f"{mode}.{point}"
        for i, layer in enumerate(pack.layers[name]):
            if layer in sums:
                sums[layer] = sums[layer] + pack.vectors[name][index, i]
    return max(
        abs(strength) * float(total.norm()) / (float(pack.rms[layer]) * pack.d_model**0.5)
        for layer, total in sums.items()
    )


def _steered(pack: SteeringPack, mode: str) -> tuple[int, ...]:
    return tuple(sorted({n for p in pack.points(mode) for n in pack.layers[f"{mode}.{p}"]}))


def banded(
    pack: SteeringPack, emotion: str, bands: Mapping[str, Mapping[str, Sequence[int]]]
) -> SteeringPack:
    """One emotion's vectors at several bands of layers, each under a name, to steer in one batch.

    Args:
        pack: The pack.
        emotion: Whose vectors.
        bands: Name → mode → layers that stay; a mode that is left out steers nothing.

    Returns:
        A pack with the bands in place of emotions, and with strengths of 1.

    Raises:
        DataError: If a band is to step by the classifier, which needs the pack's emotions.
    """
    if any(GRADIENT in modes for modes in bands.values()):
        raise DataError(
            "A classifier tells emotions apart, so bands of one emotion cannot take their places; "
            f"ask for other modes than {GRADIENT}."
        )
    pack = _without_classifier(pack)
    index, names = pack.emotions.index(emotion), tuple(bands)
    vectors = {
        name: torch.stack(
            [
                pack.vectors[name][index]
                * torch.tensor([n in set(bands[b].get(mode, ())) for n in layers])[:, None]
                for b in names
            ]
        )
        for name, layers in pack.layers.items()
        for mode in (name.partition(".")[0],)
    }
    return replace(
        pack,
        emotions=names,
        vectors=vectors,
        low_rank={
            name: maps.banded(
                index,
                torch.tensor(
                    [[n in bands[b].get(LOW_RANK, ()) for n in pack.layers[name]] for b in names]
                ),
            )
            for name, maps in pack.low_rank.items()
        },
        recommended={mode: dict.fromkeys(names, 1.0) for mode in pack.modes},
        responses={},
        enough={},
    )


def _without_classifier(pack: SteeringPack) -> SteeringPack:
    """The pack without the mode that steps by its classifier."""
    if pack.classifier is None:
        return pack
    own = [name for name in pack.vectors if name.partition(".")[0] == GRADIENT]
    return replace(
        pack,
        classifier=None,
        vectors={name: x for name, x in pack.vectors.items() if name not in own},
        layers={name: x for name, x in pack.layers.items() if name not in own},
        recommended={mode: x for mode, x in pack.recommended.items() if mode != GRADIENT},
        positions={mode: x for mode, x in pack.positions.items() if mode != GRADIENT},
        first=None if pack.first == GRADIENT else pack.first,
    )
