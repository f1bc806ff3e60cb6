"""Reading specs: what people type, what clients send, what Python passes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.core import EMOTIONS, AffectLensError, DataError, UnknownNameError
from affectlens.steering.gates import Gate
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import MAX_STRENGTH, MODES, POSITIONS, UNITS, SteeringSpec

parse = SteeringSpec.parse

SHARES = st.floats(1e-6, 0.999)
STRENGTHS = st.floats(-20, 20, allow_nan=False)


@st.composite
def specs(draw: Any) -> SteeringSpec:
    operator = draw(st.sampled_from(tuple(OPERATORS)))
    unit = draw(st.sampled_from(UNITS))
    limit = OPERATORS[operator].share or min(20, MAX_STRENGTH[unit])
    return SteeringSpec(
        draw(st.dictionaries(st.sampled_from(EMOTIONS), st.floats(-limit, limit))),
        mode=draw(st.sampled_from((None, *MODES))),
        positions=draw(st.sampled_from((None, *POSITIONS))),
        operator=operator,
        unit=unit,
        gate=draw(st.none() | st.builds(Gate, st.sampled_from(EMOTIONS), st.booleans(), SHARES)),
    )


@settings(deadline=None)
@given(specs())
def test_every_form_reads_back_as_the_same(spec: SteeringSpec) -> None:
    forms = [str(spec), spec.to_dict(), json.dumps(spec.to_dict()), spec, f" {spec} "]
    for form in forms:
        again = parse(form)
        assert again == spec
        assert hash(again) == hash(spec)
        assert again.fingerprint == spec.fingerprint
    assert bool(spec) == any(spec.weights.values())


@settings(deadline=None)
@given(specs(), specs())
def test_text_and_equality_agree(one: SteeringSpec, other: SteeringSpec) -> None:
    assert (one == other) == (str(one) == str(other)) == (one.fingerprint == other.fingerprint)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        spec = parse(text)
    except AffectLensError as error:
        assert len(str(error)) > 20
    else:
        assert parse(str(spec)) == spec


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_is_read_or_refused_in_words(value: Any) -> None:
    for form in (value, json.dumps({"weights": value}), json.dumps({"anger": value})):
        try:
            parse(form)
        except AffectLensError as error:
            assert len(str(error)) > 20


@settings(deadline=None)
@given(st.permutations(["anger=0.5", "fear=-1", "sadness=2e0"]))
def test_order_and_spelling_do_not_matter(parts: list[str]) -> None:
    assert str(parse(" , ".join(parts))) == "anger=0.5,fear=-1,sadness=2"


def test_forms() -> None:
    wanted = SteeringSpec(
        {"anger": 0.8, "sadness": -0.2}, mode="residual", positions="all", unit="natural"
    )
    text = "anger=0.8,sadness=-0.2;mode=residual;positions=all;unit=natural"
    assert str(wanted) == text
    flat = {
        "sadness": -0.2,
        "mode": "residual",
        "anger": 0.8,
        "unit": "natural",
        "positions": "all",
    }
    for form in (text, text + ";", text.replace("anger", "Angry"), flat, json.dumps(flat)):
        assert parse(form) == wanted
    assert parse("joy=1").weights == {"happiness": 1}
    assert parse({"anger": np.float32(0.5), "fear": np.int64(2)}) == parse("anger=0.5,fear=2")
    assert parse("anger=0.1").weights["anger"] == 0.1


@pytest.mark.parametrize("nothing", [None, "", " none ", {}, "anger=0", "anger=-0.0", "{}"])
def test_zero_strengths_drop_out(nothing: Any) -> None:
    spec = parse(nothing)
    assert not spec
    assert str(spec) == "none"
    assert spec == SteeringSpec({"fear": 0.0}, mode="circuit", operator="clamp", unit="raw")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("anger", ["'anger'", "name=value"]),
        ("anger=", ["'anger='"]),
        ("anger=strong", ["anger", "'strong'"]),
        ("anger=1,anger=2", ["anger twice"]),
        ("joy=1,happiness=2", ["happiness twice"]),
        ('{"anger": 1, "anger": 2}', ["anger twice"]),
        ("anger=nan", ["anger", "nan"]),
        ("anger=inf", ["anger", "inf"]),
        ("anger=20.5", ["-20 and 20", "20.5"]),
        ("anger=-21;unit=natural", ["-20 and 20", "natural"]),
        ("anger=3;operator=project_out", ["-2 and 2", "project_out"]),
        ("anger=1e400;unit=raw", ["inf"]),
        ({"anger": 10**400}, ["inf"]),
        ({"anger": True}, ["anger", "True"]),
        ({"anger": "1"}, ["anger", "'1'"]),
        ({"anger": None}, ["None"]),
        ({"weights": [1]}, ["weights", "[1]"]),
        ("anger=1;mode=circuit;mode=residual", ["mode", "twice"]),
        ("{anger: 1}", ["JSON"]),
        ("{" + '"a":[' * 100_000, ["JSON"]),
        (3.5, ["3.5"]),
        (["anger=1"], ["anger=1"]),
    ],
)
def test_mistakes_are_named(value: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        parse(value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("value", "first"),
    [
        ("angre=1", "emotion 'angre'; choose one of: anger"),
        ("neutral=1", "emotion 'neutral'"),
        ({3: 1.0}, "emotion '3'"),
        ("anger=1;mode=residuals", "mode 'residuals'; choose one of: residual"),
        ("anger=1;positions=generate", "positions 'generate'; choose one of: generated"),
        ("anger=1;operator=project", "operator 'project'; choose one of: project_out"),
        ("anger=1;unit=natura", "unit 'natura'; choose one of: natural"),
        ("anger=1;units=rms", "steering option 'units'"),
        ({"weights": {"anger": 1}, "fear": 1}, "steering option 'fear'"),
        ({"anger": 1, "mode": ["residual"]}, "mode"),
        ({"anger": 1, "unit": None}, "unit 'None'"),
    ],
)
def test_unknown_names_come_with_the_closest_first(value: Any, first: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse(value)
    assert first in str(caught.value)


def test_strengths_are_limited_by_unit() -> None:
    assert parse("anger=8;unit=rms").weights == {"anger": 8}
    assert parse("anger=90;unit=rms")
    assert parse("anger=500;unit=raw")
    with pytest.raises(DataError):
        parse("anger=500;unit=rms")


def test_labels_of_other_corpora() -> None:
    labels = ("Joy", "calm", "very sad")
    spec = parse("Joy=1,very sad=2", labels)
    assert spec.weights == {"Joy": 1, "very sad": 2}
    assert parse(str(spec), labels) == spec
    assert spec.changed(mode="residual").weights == spec.weights
    with pytest.raises(UnknownNameError, match="calm"):
        parse("anger=1", labels)
    with pytest.raises(UnknownNameError, match="emotion 'anger'"):
        parse(SteeringSpec({"anger": 1.0}), labels)


def test_the_share_taken_out_has_no_unit() -> None:
    one, other = (parse(f"anger=1;operator=project_out;unit={unit}") for unit in ("raw", "rms"))
    assert one == other
    assert not math.isnan(one.weights["anger"])


def test_several_specs_add_up_or_contradict_each_other() -> None:
    combined = SteeringSpec.combined
    whole = SteeringSpec.parse("anger=1,fear=0.5;mode=circuit;gate=anger>0.4")
    for parts in (
        ["anger=1;mode=circuit", "fear=0.5;gate=anger>0.4"],
        ["fear=0.5;mode=circuit", '{"anger": 1, "gate": "anger>0.4"}'],
        [{"weights": {"anger": 1}}, "none", None, "fear=0.5;gate=anger>0.4", {"mode": "circuit"}],
        [SteeringSpec({"anger": 1, "fear": 0.5}, mode="circuit"), {"gate": "anger>0.4"}],
    ):
        assert combined(parts) == whole
    assert combined([]) == combined(["none"]) == SteeringSpec()
    assert combined(["anger=1;mode=circuit", "fear=1;mode=circuit"]).mode == "circuit"
    for parts, sentence in (
        (["anger=1", "anger=2"], "anger twice"),
        (["happiness=1", "joy=2"], "happiness twice"),
        (["anger=1;mode=circuit", "fear=1;mode=residual"], "mode is circuit and residual"),
        # The default by name is no less of a choice.
        (["anger=1;operator=add", "fear=1;operator=clamp"], "operator is add and clamp"),
        (["anger=1", ["fear", 1]], "A steering spec is a text"),
        (["anger=1", {"weights": [1]}], "weights must map"),
    ):
        with pytest.raises(DataError, match=sentence):
            combined(parts)
    with pytest.raises(UnknownNameError, match="angr"):
        combined(["anger=1", "angr=2"])
