"""Units that mean an effect: the line and its inverse, what packs keep of it, and who refuses."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d

from affectlens.core import DataError, UnknownNameError
from affectlens.core.places import WritePoint
from affectlens.serving.coefficients import coefficients
from affectlens.steering import SteeringPack, SteeringSpec, generate_steered
from affectlens.steering.blends import between
from affectlens.steering.intensity import DoseResponse
from affectlens.steering.pack_places import vectors_at
from tests.steering.oracle import random_pack

LINE = DoseResponse((0, 0.5, 1, 2), (0.05, 0.1, 0.6, 0.9))


@st.composite
def responses(draw: Any) -> DoseResponse:
    n = draw(st.integers(2, 8))
    steps = st.lists(st.floats(0.01, 3), min_size=n, max_size=n)
    doses = np.cumsum([0.0, *draw(steps)[1:]])
    values = np.cumsum(draw(steps))
    return DoseResponse(tuple(doses), tuple(values / (values[-1] * 1.1)))


@settings(deadline=None)
@given(responses(), st.floats(0, 1))
def test_the_inverse_undoes_it_and_both_rise(line: DoseResponse, share: float) -> None:
    low, high = line.range
    for dose, value in zip(line.doses, line.values, strict=True):
        assert line.effect(dose) == pytest.approx(value, abs=1e-12)
        assert line.dose(value) == pytest.approx(dose, abs=1e-9)
    asked = low + share * (high - low)
    assert line.effect(line.dose(asked)) == pytest.approx(asked, abs=1e-9)
    grid = np.linspace(low, high, 50)
    doses = [line.dose(x) for x in grid]
    assert doses == sorted(doses) and doses[-1] == line.doses[-1]
    wanted = interp1d(line.values, line.doses)(grid[1:-1])
    assert np.allclose(doses[1:-1], wanted, atol=1e-9)


def test_ends_and_signs() -> None:
    assert LINE.range == (0.05, 0.9)
    assert LINE.dose(0) == LINE.dose(0.05) == 0
    assert LINE.dose(1) == LINE.dose(0.9) == 2
    assert LINE.effect(7) == 0.9 and LINE.effect(-0.5) == 0.1
    assert LINE.dose(-0.6) == -LINE.dose(0.6) == -1


@pytest.mark.parametrize(
    ("doses", "values", "said"),
    [
        ((0,), (0.1,), "two or more"),
        ((0, 1), (0.5, 0.5), "rising"),
        ((0, 1, 0.5), (0, 0.1, 0.2), "rising"),
        ((0.1, 1), (0, 0.1), "the first of them 0"),
        ((0, 1, 2), (0, 0.1), "a value for every dose"),
        ((0, math.nan), (0, 0.1), "rising"),
        ((0, math.inf), (0, 0.1), "rising"),
        ("ab", (0, 0.1), "rising"),
        (None, (0, 0.1), "rising"),
    ],
)
def test_what_is_no_response(doses: Any, values: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        DoseResponse(doses, values)


@pytest.fixture(scope="module")
def model(tiny_model: Any) -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def pack(model: Any) -> SteeringPack:
    other = DoseResponse((0, 3), (0, 1))
    return (
        random_pack(model)
        .with_responses("heard", "residual", {"anger": LINE, "fear": other})
        .with_responses("kl", "residual", {"anger": DoseResponse((0, 2, 4), (0, 0.5, 3))})
    )


def asked_alike(pack: SteeringPack, spec: str, natural: Mapping[str, float]) -> None:
    """A request means the same doses in tables and in a server's coefficients."""
    wanted = SteeringSpec(natural, mode="residual", unit="natural")
    one, other = pack.table([spec]), pack.table([wanted])
    hidden = torch.randn(1, 3, pack.d_model)
    rows = torch.tensor([1])
    assert list(one.sites) == list(other.sites)
    for place, site in one.sites.items():
        torch.testing.assert_close(
            site.apply(hidden, rows, None), other.sites[place].apply(hidden, rows, None)
        )
    places = [WritePoint(n, "resid_post") for n in pack.layers["residual.resid_post"]]
    vectors = vectors_at(pack, places)
    found, reference = (
        coefficients(pack, pack.resolve(s), places, vectors).shift for s in (spec, wanted)
    )
    torch.testing.assert_close(found, reference)


@pytest.mark.parametrize(
    ("spec", "natural"),
    [
        ("anger=0.6;unit=heard", {"anger": 1.0}),
        ("anger=0.35;unit=heard", {"anger": 0.75}),
        ("anger=-0.6;unit=heard", {"anger": -1.0}),
        ("anger=0.1,fear=0.5;unit=heard", {"anger": 0.5, "fear": 1.5}),
        ("anger=1.75;unit=kl", {"anger": 3.0}),
    ],
)
def test_an_effect_is_steered_by_its_dose(
    pack: SteeringPack, spec: str, natural: dict[str, float]
) -> None:
    asked_alike(pack, spec, natural)


def test_beyond_the_range_is_told(pack: SteeringPack, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        found = pack.resolve("anger=0.95;unit=heard")
    assert dict(found.weights) == {"anger": 0.9}
    assert "more than was measured (heard 0.05 to 0.90)" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert pack.resolve(found) == found  # once it is said, it is said
        assert not caplog.text
        assert not pack.resolve("anger=0.04;unit=heard")
    assert "is there without steering" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        pack.table(["anger=0.95;unit=heard", "anger=0.04;unit=heard"] * 20)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2  # not of every row


def test_what_was_not_measured_is_refused(pack: SteeringPack) -> None:
    for spec, said in (
        ("happiness=0.5;unit=heard", r"what doses of happiness do.*affectlens tune intensity"),
        ("anger=0.5;unit=heard;mode=circuit", "in mode circuit"),
        ("fear=0.5;unit=kl", "unit=kl"),
        ("anger=0.5;unit=heard;operator=clamp", "operator=add"),
        ("anger=0.5;unit=heard;positions=all", r"positions=last_prompt\+generated"),
        ("anger=1.5;unit=heard", "between -1 and 1"),
    ):
        with pytest.raises(DataError, match=said):
            pack.resolve(spec)
    with pytest.raises(DataError):
        replace(pack, responses={}).resolve("anger=0.5;unit=heard")
    for unit, mode, emotion in (
        ("loud", "residual", "anger"), ("heard", "x", "anger"), ("heard", "residual", "x"),
    ):  # fmt: skip
        with pytest.raises(UnknownNameError):
            pack.with_responses(unit, mode, {emotion: LINE})
    with pytest.raises(DataError, match="cannot"):
        pack.with_responses("heard", "residual", {"anger": DoseResponse((0, 1), (0, 1.2))})


def test_packs_keep_it(pack: SteeringPack, tmp_path: Path) -> None:
    pack.save(tmp_path / "a.safetensors")
    again = SteeringPack.load(tmp_path / "a.safetensors")
    assert again.responses == pack.responses and again.fingerprint == pack.fingerprint
    assert pack.brief()["calibrated"] == "heard+kl"
    louder = pack.with_recommended("residual", 2.0)
    assert louder.responses == pack.responses  # natural doses: the recommended one plays no part
    moved = pack.with_recommended("residual", 2.0, positions="all")
    assert not moved.responses
    assert pack.with_recommended("circuit", 2.0, positions="all").responses == pack.responses


def test_merging_keeps_both(model: Any) -> None:
    both = random_pack(model)

    def only(mode: str) -> SteeringPack:
        return replace(
            both,
            vectors={n: v for n, v in both.vectors.items() if n.startswith(mode)},
            layers={n: v for n, v in both.layers.items() if n.startswith(mode)},
        ).with_responses("heard", mode, {"anger": LINE})

    found = SteeringPack.merge(only("residual"), only("circuit").with_first("circuit"))
    assert set(found.responses["heard"]) == {"residual", "circuit"}
    assert found.modes == ("circuit", "residual")


def test_the_first_mode_is_the_default(pack: SteeringPack, tmp_path: Path) -> None:
    assert pack.resolve("anger=1").mode == "residual"
    other = pack.with_first("circuit")
    assert other.modes == ("circuit", "residual") and other.resolve("anger=1").mode == "circuit"
    other.save(tmp_path / "b.safetensors")
    again = SteeringPack.load(tmp_path / "b.safetensors")
    assert again.first == "circuit" and again.fingerprint == other.fingerprint != pack.fingerprint
    with pytest.raises(UnknownNameError):
        pack.with_first("x")
    with pytest.raises(UnknownNameError):
        replace(pack, first="x")


def test_a_mixture_that_cancels_is_refused(pack: SteeringPack) -> None:
    name = "residual.resid_post"
    vectors = pack.vectors[name].clone()
    vectors[1] = -vectors[0]
    opposed = replace(pack, vectors={**pack.vectors, name: vectors})
    with pytest.raises(DataError, match="cancel each other"):
        opposed.resolve("anger=1,fear=1;unit=natural")
    with pytest.raises(DataError, match="cancel each other"):
        opposed.resolve("anger=2,fear=2;unit=raw")
    with pytest.raises(DataError, match="cancel each other"):
        opposed.resolve("anger=0.5,fear=0.5;unit=natural;operator=rotate")
    assert opposed.resolve("anger=1,fear=0.9;unit=natural")
    assert opposed.resolve("anger=1,fear=-1;unit=natural")
    assert opposed.resolve("anger=1,fear=1;unit=natural;operator=clamp")
    assert pack.resolve("anger=1,fear=1,happiness=1")


def test_between_two_emotions() -> None:
    found = between("anger", "fear", 5, heard=0.8, mode="residual")
    assert [dict(s.weights) for s in found[1:-1]] == [
        {"anger": pytest.approx(0.8 * (1 - t)), "fear": pytest.approx(0.8 * t)}
        for t in (0.25, 0.5, 0.75)
    ]
    assert dict(found[0].weights) == {"anger": 0.8} and dict(found[-1].weights) == {"fear": 0.8}
    assert {(s.unit, s.mode) for s in found} == {("heard", "residual")}
    for wrong in (1, True, 2.5):
        with pytest.raises(DataError, match="2 steps"):
            between("anger", "fear", wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="nothing between"):
        between("anger", "angry", 3)
    with pytest.raises(UnknownNameError):
        between("anger", "x", 3)


def test_it_generates(pack: SteeringPack, model: Any) -> None:
    prompt = [5, 17, 33, 90]
    rows = generate_steered(
        model, pack, [prompt] * 2, ["anger=0.6;unit=heard", "anger=1;unit=natural"]
    )
    assert rows[0] == rows[1]
