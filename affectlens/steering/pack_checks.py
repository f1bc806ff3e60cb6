"""Checks of what a steering pack holds, which may come from a stranger's file."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.steering.classifier import GRADIENT
from affectlens.steering.gates import EMBEDDINGS
from affectlens.steering.intensity import check_responses
from affectlens.steering.low_rank import LOW_RANK
from affectlens.steering.spec import MODES, POSITIONS

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack

_LABEL = re.compile(r"[^\s,;=\"{}][^,;=\"{}]*")


def check_pack(pack: SteeringPack) -> None:
    """Hold the parts of a pack against each other.

    Raises:
        DataError, UnknownNameError: If something does not fit, with its name and value.
    """
    _check_names(pack)
    _check_tensors(pack)
    _check_low_rank(pack)
    _check_classifier(pack)
    _check_probes(pack)
    _check_enough(pack)
    check_responses(pack)
    if pack.first is not None and pack.first not in pack.modes:
        raise unknown("first mode of the pack", pack.first, pack.modes)
    for mode in pack.modes:
        for field in ("positions", "recommended"):
            if mode not in getattr(pack, field):
                raise DataError(f"{field} of the pack lacks the mode {mode}.")
        if pack.positions[mode] not in POSITIONS:
            raise unknown("positions", pack.positions[mode], POSITIONS)
        for emotion in pack.emotions:
            strength: Any = pack.recommended[mode].get(emotion)
            number = isinstance(strength, (int, float)) and not isinstance(strength, bool)
            if not (number and math.isfinite(strength)):
                raise DataError(
                    f"The recommended strength of {emotion} in mode {mode} must be a number, not "
                    f"{strength!r}."
                )


def _check_enough(pack: SteeringPack) -> None:
    for emotion, numbers in pack.enough.items():
        if emotion not in pack.emotions:
            raise unknown("emotion", emotion, pack.emotions)
        for name in ("heads", "neurons", "share", "f", "random", "p"):
            value: Any = numbers.get(name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value)):
                raise DataError(
                    f"What is enough for {emotion} lacks a number {name}, or it is {value!r}."
                )


def _check_probes(pack: SteeringPack) -> None:
    if pack.readout is not None:
        pack.readout.check(pack.n_layers, pack.d_model)
    if pack.gates is None:
        return
    pack.gates.check(pack.n_layers, pack.d_model, first=EMBEDDINGS)
    if pack.readout is None:
        return
    if pack.gates.classes != pack.readout.classes:
        raise DataError(
            f"The pack's gates tell {', '.join(pack.gates.classes)} apart and its readings "
            f"{', '.join(pack.readout.classes)}; make both from the same probes."
        )
    for i, layer in enumerate(pack.gates.layers):
        if layer not in pack.readout.layers:
            continue
        j = pack.readout.layers.index(layer)
        for name in ("weights", "bias"):
            if not getattr(pack.gates, name)[i].equal(getattr(pack.readout, name)[j]):
                raise DataError(
                    f"The pack's gates and its readings have different probes of block {layer}; "
                    "make both from the same ones."
                )


def _check_names(pack: SteeringPack) -> None:
    if not pack.emotions or len(set(pack.emotions)) < len(pack.emotions):
        raise DataError(f"A pack needs emotions, each once, not {list(pack.emotions)}.")
    for emotion in pack.emotions:
        if not isinstance(emotion, str) or not _LABEL.fullmatch(emotion):
            raise DataError(f"{emotion!r} cannot be the name of an emotion in a steering spec.")
    for name in ("n_layers", "d_model"):
        value: Any = getattr(pack, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"{name} of the pack must be a positive whole number, not {value!r}.")


def _check_tensors(pack: SteeringPack) -> None:
    valid = [f"{mode}.{point}" for mode, points in MODES.items() for point in points]
    if not pack.vectors:
        raise DataError(f"A pack needs vectors, named one of {', '.join(valid)}.")
    for name, vectors in pack.vectors.items():
        if name not in valid:
            raise unknown("steering tensor", name, valid)
        layers: tuple[Any, ...] = tuple(pack.layers.get(name, ()))
        inside = all(isinstance(n, int) and 0 <= n < pack.n_layers for n in layers)
        if not (layers and inside and list(layers) == sorted(set(layers))):
            raise DataError(
                f"Layers of {name} must ascend within 0 to {pack.n_layers - 1}, not {list(layers)}."
            )
        shape = (len(pack.emotions), len(layers), pack.d_model)
        if tuple(vectors.shape) != shape:
            raise DataError(f"{name} has shape {list(vectors.shape)}, not {list(shape)}.")
        if not bool(vectors.isfinite().all()):
            raise DataError(f"{name} holds NaN or infinity.")
    rms = pack.rms
    fits = rms is None or (tuple(rms.shape) == (pack.n_layers,) and bool((rms > 0).all()))
    if not fits or (rms is not None and not bool(rms.isfinite().all())):
        raise DataError(f"rms of the pack must hold {pack.n_layers} positive numbers.")


def _check_low_rank(pack: SteeringPack) -> None:
    wanted = {name for name in pack.vectors if name.partition(".")[0] == LOW_RANK}
    for name in sorted(wanted ^ pack.low_rank.keys()):
        lacks = "maps, its reads and writes" if name in wanted else "vectors"
        raise DataError(f"The pack lacks {lacks}, of {name}.")
    for name, maps in pack.low_rank.items():
        maps.check(name, len(pack.emotions), len(pack.layers[name]), pack.d_model)


def _check_classifier(pack: SteeringPack) -> None:
    name = f"{GRADIENT}.resid_post"
    if (pack.classifier is None) != (name not in pack.vectors):
        lacks = "a classifier" if pack.classifier is None else "vectors"
        raise DataError(f"The pack lacks {lacks}, of {name}.")
    if pack.classifier is not None:
        pack.classifier.check(len(pack.emotions), len(pack.layers[name]), pack.d_model)
