"""Bands of layers: which they are, and that what is left out is not steered."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from affectlens.core import DataError, UnknownNameError
from affectlens.steering import SteeringPack, generate_steered
from affectlens.steering.bands import band_layers, banded, length_of, relative_size, within
from affectlens.steering.intensity import DoseResponse
from tests.steering.oracle import random_pack

PROMPT = [5, 17, 33, 90]


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def pack(model: Any) -> SteeringPack:
    return random_pack(model)


def test_bands(pack: SteeringPack) -> None:
    assert band_layers(pack, "residual", "all") == (0, 2)
    assert band_layers(pack, "circuit", "all") == (0, 1, 2)
    thirds = [band_layers(pack, "circuit", band) for band in ("early", "middle", "late")]
    assert thirds == [(0,), (1,), (2,)]
    assert band_layers(pack, "circuit", "1-2") == (1, 2)
    assert band_layers(pack, "residual", "2") == (2,)
    with pytest.raises(DataError, match="none of the layers"):
        band_layers(pack, "residual", "1")
    for wrong in ("upper", "9", "2-1"):
        with pytest.raises(UnknownNameError):
            band_layers(pack, "residual", wrong)


def test_the_rest_is_not_steered(pack: SteeringPack, model: Any) -> None:
    heard = pack.with_responses(
        "heard", "circuit", {e: DoseResponse((0, 1), (0, 1)) for e in ("anger", "fear")}
    )
    found = within(heard, "circuit", "anger", (1,))
    assert {at.layer for at in found.table(["anger=1;mode=circuit"]).sites} == {1}
    assert {at.layer for at in found.table(["fear=1;mode=circuit"]).sites} == {0, 1, 2}
    assert {at.layer for at in found.table(["anger=1;mode=residual"]).sites} == {0, 2}
    assert set(found.responses["heard"]["circuit"]) == {"fear"}  # anger's were of all layers
    assert length_of(pack, "circuit", "anger", (1,)) == pytest.approx(
        sum(float(pack.vectors[n][0, pack.layers[n].index(1)].norm())
            for n in ("circuit.o_proj_out", "circuit.down_proj_out"))
    )  # fmt: skip


def test_bands_in_one_batch_are_bands_alone(pack: SteeringPack, model: Any) -> None:
    bands = {"all": {"circuit": (0, 1, 2), "residual": (0, 2)}, "late": {"circuit": (2,)}}
    both = banded(pack, "anger", bands)
    specs = ["all=4;mode=circuit", "late=6;mode=circuit", "all=4;mode=residual"]
    found = generate_steered(model, both, [PROMPT] * 3, [both_spec(both, spec) for spec in specs])
    alone = [
        (within(pack, mode, "anger", bands[band][mode]), f"anger={s};unit=natural;mode={mode}")
        for band, s, mode in (("all", 4, "circuit"), ("late", 6, "circuit"), ("all", 4, "residual"))
    ]
    for row, (one, spec) in zip(found, alone, strict=True):
        assert row == generate_steered(model, one, [PROMPT], [spec])[0]
    assert not both.table([both_spec(both, "late=1;mode=residual")]).sites


def both_spec(pack: SteeringPack, text: str) -> Any:
    from affectlens.steering import SteeringSpec

    return SteeringSpec.parse(f"{text};unit=natural", pack.emotions)


def test_size_beside_the_stream(pack: SteeringPack) -> None:
    assert pack.rms is not None
    sums = [
        sum(pack.vectors[n][0, pack.layers[n].index(layer)]
            for n in ("circuit.o_proj_out", "circuit.down_proj_out") if layer in pack.layers[n])
        for layer in (0, 1)
    ]  # fmt: skip
    wanted = max(
        2 * float(torch.as_tensor(s).norm() / (pack.rms[i] * pack.d_model**0.5))
        for i, s in enumerate(sums)
    )
    assert relative_size(pack, "circuit", "anger", (0, 1), -2.0) == pytest.approx(wanted)
    from dataclasses import replace

    assert relative_size(replace(pack, rms=None), "circuit", "anger", (0,), 1.0) is None
