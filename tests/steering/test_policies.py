"""Policies: formulas by hand, where moods come to rest, and what is refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from affectlens.core import EMOTIONS, DataError
from affectlens.core.emotions import NEUTRAL, VAD
from affectlens.core.errors import UnknownNameError
from affectlens.steering.affect_targets import mixture_for, place_of
from affectlens.steering.policies import (
    POLICIES,
    AffectState,
    Decision,
    Known,
    Policy,
    Traits,
    load_policy,
    require_within,
)
from affectlens.steering.policies.transition import Transition

ORIGIN = AffectState()
NOTHING: dict[str, float] = {NEUTRAL: 1.0}


def readings(seed: int, count: int) -> list[dict[str, float]]:
    """Probabilities of the six and neutral, some spread, some nearly certain."""
    random = np.random.default_rng(seed)
    sharp = random.choice([0.1, 1.0], size=count)
    rows = [random.dirichlet([s] * 7) for s in sharp]
    return [dict(zip((*EMOTIONS, NEUTRAL), row.tolist(), strict=True)) for row in rows]


def settled(policy: Policy, read: dict[str, float], turns: int = 200) -> AffectState:
    state = policy.begin()
    for _ in range(turns):
        state = policy.decide(Known(state, read)).state
    return state


class TestTraits:
    def test_temperaments_are_mehrabians(self) -> None:
        """Each trait alone, as printed: valence, arousal, dominance."""
        for name, (v, a, d) in {
            "openness": (0.0, 0.15, 0.25),
            "conscientiousness": (0.0, 0.0, 0.17),
            "extraversion": (0.21, 0.0, 0.60),
            "agreeableness": (0.59, 0.30, -0.32),
        }.items():
            assert Traits(**{name: 1.0}).temperament.place == pytest.approx((v, a, d))
        # Emotional stability is predicted with .19 and -.57; neuroticism is its other end.
        stable = Traits(neuroticism=-1.0).temperament
        assert stable.place == pytest.approx((0.19, -0.57, 0.0))

    def test_a_mixed_person_by_hand(self) -> None:
        found = Traits(0.5, -0.2, 0.4, -1.0, 0.3).temperament
        assert found.valence == pytest.approx(0.21 * 0.4 - 0.59 - 0.19 * 0.3)
        assert found.arousal == pytest.approx(0.15 * 0.5 - 0.30 + 0.57 * 0.3)
        assert found.dominance == pytest.approx(0.25 * 0.5 - 0.17 * 0.2 + 0.60 * 0.4 + 0.32)

    def test_temperaments_stay_in_range(self) -> None:
        for signs in itertools.product((-1.0, 1.0), repeat=5):
            assert all(-1 <= x <= 1 for x in Traits(*signs).temperament.place)

    def test_texts_are_read(self) -> None:
        traits = Traits.parse("extraversion:0.5, neuroticism:-0.3")
        assert traits == Traits(extraversion=0.5, neuroticism=-0.3)
        assert Traits.parse(str(traits)) == traits and Traits.parse("") == Traits()

    @pytest.mark.parametrize("value", [1.5, -1.01, math.nan, math.inf, True, "much"])
    def test_what_is_out_of_range_is_refused(self, value: Any) -> None:
        with pytest.raises(DataError, match="openness must be a number from -1 to 1"):
            Traits(openness=value)

    @pytest.mark.parametrize("text", ["openness", "openness:much", "openness:nan", ":0.1",
                                      "openness:0.1,openness:0.2"])  # fmt: skip
    def test_what_cannot_be_read_is_refused(self, text: str) -> None:
        with pytest.raises(DataError, match="traits"):
            Traits.parse(text)
        with pytest.raises(UnknownNameError, match="neuroticism"):
            Traits.parse("neurotic:0.5")


class TestTransition:
    TRAITS = "openness:0.4,extraversion:0.5,agreeableness:-0.3,neuroticism:0.6"

    def test_one_step_by_hand(self) -> None:
        policy = Transition(traits=self.TRAITS, decay=0.3, reactivity=0.5)
        t = np.array(Traits.parse(self.TRAITS).temperament.place)
        m = np.array([0.2, -0.1, 0.4])
        read = {"anger": 0.6, "sadness": 0.3, NEUTRAL: 0.1}
        c = 0.6 * np.array(VAD["anger"]) + 0.3 * np.array(VAD["sadness"])
        found = policy.decide(Known(AffectState(*m.tolist()), read))
        wanted = m + 0.3 * (t - m) + 0.5 * (1 + t) * c
        assert found.state.place == pytest.approx(wanted.tolist())
        mixture = mixture_for(*wanted.tolist())
        assert dict(found.strengths) == pytest.approx(mixture, abs=1e-4) and mixture

    @pytest.mark.parametrize("decay", [0.1, 0.4, 1.0])
    def test_without_emotion_the_mood_falls_back_to_the_temperament(self, decay: float) -> None:
        policy = Transition(traits=self.TRAITS, decay=decay)
        t = np.array(Traits.parse(self.TRAITS).temperament.place)
        start = np.array([-0.9, 0.9, -0.5])
        state = AffectState(*start.tolist())
        for turn in range(1, 120):
            state = policy.decide(Known(state, NOTHING)).state
            wanted = t + (1 - decay) ** turn * (start - t)
            assert state.place == pytest.approx(wanted.tolist(), abs=1e-9)
        assert state.place == pytest.approx(t.tolist(), abs=1e-4)
        assert policy.begin().place == pytest.approx(t.tolist())

    def test_somebody_without_marked_traits_comes_to_rest_where_the_user_is(self) -> None:
        for read in readings(0, 10):
            assert settled(Transition(), read).place == pytest.approx(
                Known(ORIGIN, read).place, abs=1e-6
            )

    def test_a_neurotic_person_is_moved_further_in_arousal_and_a_stable_one_less(self) -> None:
        read = {"fear": 1.0}
        moved = [
            Transition(traits=f"neuroticism:{n}", decay=0).decide(Known(ORIGIN, read)).state.arousal
            for n in (-1, 0, 1)
        ]
        assert moved == pytest.approx([0.4 * (1 + 0.57 * n) * 0.82 for n in (-1, 0, 1)])

    def test_moods_stay_in_range_whatever_is_read(self) -> None:
        policy = Transition(traits="neuroticism:1,agreeableness:1", decay=0, reactivity=1)
        state = policy.begin()
        for _ in range(20):
            state = policy.decide(Known(state, {"fear": 1.0})).state
        assert state.arousal == 1 and all(-1 <= x <= 1 for x in state.place)

    @pytest.mark.parametrize("seed", range(4))
    def test_the_nearest_emotion_is_that_of_a_search(self, seed: int) -> None:
        policy = Transition(choice="nearest", decay=0, reactivity=0)
        for row in np.random.default_rng(seed).uniform(-1, 1, size=(50, 3)):
            found = dict(policy.decide(Known(AffectState(*row.tolist()), NOTHING)).strengths)
            places = {e: np.array(VAD[e]) for e in EMOTIONS}
            far = {e: float(np.linalg.norm(a - row)) for e, a in places.items()}
            best = min(far, key=lambda e: far[e])
            if float(np.linalg.norm(row)) <= far[best]:
                assert found == {}
                continue
            # As far along the emotion as least squares go, and at most all the way.
            along = np.linalg.lstsq(places[best][:, None], row, rcond=None)[0][0]
            assert found == {best: pytest.approx(min(1.0, along), abs=1e-4)}
            assert 0.5 < found[best] <= 1

    def test_strengths_are_multiplied(self) -> None:
        known = Known(AffectState(*VAD["anger"]), NOTHING)
        full, half = (
            Transition(decay=0, reactivity=0, strength=s).decide(known) for s in (1.0, 0.5)
        )
        assert full.strengths == {"anger": pytest.approx(1, abs=1e-3)}
        assert half.strengths == {"anger": pytest.approx(0.5, abs=1e-3)}
        assert full.state == half.state  # the mood is the same, it is shown less

    @pytest.mark.parametrize("choice", ["mixture", "nearest"])
    def test_emotions_without_coordinates_are_refused(self, choice: str) -> None:
        known = Known(ORIGIN, {"pride": 0.5}, ("pride", "envy"))
        with pytest.raises(DataError, match="None of pride, envy"):
            Transition(choice=choice).decide(known)


class TestMirror:
    def test_it_gives_what_is_read(self) -> None:
        for read in readings(1, 20):
            found = load_policy("mirror;least=0").decide(Known(ORIGIN, read))
            for e in EMOTIONS:
                assert found.strengths.get(e, 0.0) == pytest.approx(read[e], abs=0.01)
            assert found.state.place == pytest.approx(place_of({e: read[e] for e in EMOTIONS}))
            if max(read[e] for e in EMOTIONS) > 0.1:
                assert max(found.strengths, key=lambda e: found.strengths[e]) == max(
                    EMOTIONS, key=lambda e: read[e]
                )

    def test_strength_and_least(self) -> None:
        read = {"anger": 0.6, "fear": 0.2, NEUTRAL: 0.2}
        found = load_policy("mirror;strength=0.5;least=0.3").decide(Known(ORIGIN, read))
        assert found.strengths == {"anger": 0.3}
        assert load_policy("mirror").decide(Known(ORIGIN, NOTHING)).strengths == {}


class TestCalm:
    def test_it_lowers_arousal_and_raises_nothing_that_is_read(self) -> None:
        policy = load_policy("calm;least=0")
        for read in readings(2, 40):
            found = policy.decide(Known(ORIGIN, read))
            assert all(s < 0 for s in found.strengths.values())
            _, arousal, _ = place_of(found.strengths)
            distress = [e for e in ("anger", "disgust", "fear") if read[e] >= 0.01]
            assert set(found.strengths) == set(distress)
            assert arousal < 0 if distress else arousal == 0
            for e in distress:
                assert found.strengths[e] == pytest.approx(-read[e], abs=1e-4)

    def test_what_is_pleasant_or_low_is_left_alone(self) -> None:
        for e in ("happiness", "surprise", "sadness"):
            assert load_policy("calm").decide(Known(ORIGIN, {e: 1.0})).strengths == {}

    def test_without_coordinates_nobody_knows_what_is_distress(self) -> None:
        with pytest.raises(DataError, match="None of pride, envy"):
            load_policy("calm").decide(Known(ORIGIN, {}, ("pride", "envy")))


class TestConstant:
    def test_it_is_always_the_same(self) -> None:
        policy = load_policy("constant;emotions=joy:0.6,anger:-0.2;strength=0.5")
        for read in readings(3, 5):
            found = policy.decide(Known(AffectState(0.3, 0.1, -0.8), read))
            assert found.strengths == {"happiness": 0.3, "anger": -0.1}

    def test_what_cannot_be_steered_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match="angr"):
            load_policy("constant;emotions=angr:1").decide(Known(ORIGIN, {}))
        with pytest.raises(DataError, match="each once"):
            load_policy("constant;emotions=joy:1,happiness:1").decide(Known(ORIGIN, {}))
        for text in ("emotions=anger:21", "emotions=anger:nan", "emotions=anger"):
            with pytest.raises(DataError):
                load_policy(f"constant;{text}")


@pytest.mark.parametrize("name", POLICIES)
class TestAll:
    def test_strength_0_asks_for_nothing(self, name: str) -> None:
        policy = load_policy(f"{name};strength=0")
        for read in (*readings(4, 5), {"fear": 1.0}):
            found = policy.decide(Known(AffectState(-0.5, 0.6, 0.2), read))
            assert found.strengths == {} and not found.spec()

    def test_it_is_frozen_and_pure(self, name: str) -> None:
        policy: Any = load_policy(name)
        known = Known(AffectState(-0.5, 0.6, 0.2), {"anger": 0.7, NEUTRAL: 0.3})
        first = policy.decide(known)
        policy.decide(Known(ORIGIN, {"fear": 1.0}))
        assert policy.decide(known) == first and load_policy(name) == policy
        with pytest.raises(FrozenInstanceError):
            policy.strength = 2.0

    def test_requests_are_specs_that_can_be_read_back(self, name: str) -> None:
        from affectlens.steering.spec import SteeringSpec

        for read in readings(5, 5):
            found = load_policy(name).decide(Known(ORIGIN, read))
            spec = found.spec(mode="residual")
            assert SteeringSpec.parse(str(spec)) == spec and dict(spec.weights) == found.strengths

    @pytest.mark.parametrize("value", ["-0.1", "21", "nan", "inf", "much"])
    def test_a_strength_that_is_none_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(DataError, match="strength must be a number"):
            load_policy(f"{name};strength={value}")

    def test_its_row_says_what_it_does(self, name: str) -> None:
        row = POLICIES[name]
        assert row.help and row.formula and row.source and not row.help.endswith(".")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mirorr", "mirror"),
        ("mirror;strenght=1", "strength"),
        ("transition;traits=neurotic:1", "neuroticism"),
        ("transition;choice=nearst", "nearest"),
    ],
)
def test_names_that_do_not_exist_are_refused_nearest_first(text: str, sentence: str) -> None:
    with pytest.raises(UnknownNameError, match=f"choose one of: {sentence}"):
        load_policy(text)


@pytest.mark.parametrize(
    "text",
    ["mirror;strength", "mirror;strength=", "mirror;strength=1;strength=2", "mirror;least=1.5",
     "transition;decay=-0.1", "transition;reactivity=nan", "transition;traits=neuroticism:2"],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        load_policy(text)


def test_no_product_is_beyond_the_strongest() -> None:
    with pytest.raises(DataError, match=r"happiness times strength .* to 20, not 30"):
        load_policy("constant;emotions=happiness:15;strength=2")
    assert load_policy("constant;emotions=happiness:10;strength=2").largest == 20


@pytest.mark.parametrize("name", list(POLICIES))
def test_nothing_decided_is_beyond_the_largest_strength(name: str) -> None:
    policy = load_policy(f"{name};strength=3")
    if name == "constant":
        policy = load_policy("constant;emotions=happiness:0.4,anger:-0.5;strength=3")
    certain = [{e: 1.0} for e in EMOTIONS]
    found = [
        abs(strength)
        for read in (*certain, *readings(6, 20))
        for strength in policy.decide(Known(AffectState(-0.5, 0.6, 0.2), read)).strengths.values()
    ]
    assert found and max(found) <= policy.largest
    assert policy.largest == (1.5 if name == "constant" else 3)


def test_a_policy_must_stay_within_the_unit() -> None:
    policy = load_policy("mirror;strength=5")
    require_within(policy, EMOTIONS, {"mode": None, "unit": "natural"})
    require_within(load_policy("mirror"), EMOTIONS, {"unit": "heard"})
    with pytest.raises(DataError, match=r"strength of 5; .*unit=heard strengths go up to 1"):
        require_within(policy, EMOTIONS, {"unit": "heard"})
    with pytest.raises(DataError, match=r"operator=project_out .* up to 2"):
        require_within(policy, EMOTIONS, {"operator": "project_out", "unit": "natural"})
    with pytest.raises(UnknownNameError, match="heard"):
        require_within(policy, EMOTIONS, {"unit": "herd"})


@pytest.mark.parametrize("read", [{"anger": math.nan}, {"anger": -0.1}, {"anger": 1.1},
                                  {"anger": 0.7, "fear": 0.7}, {"anger": True}])  # fmt: skip
def test_what_is_read_must_be_probabilities(read: dict[str, float]) -> None:
    with pytest.raises(DataError, match="robabilit"):
        Known(ORIGIN, read)


def test_what_is_read_must_be_known() -> None:
    with pytest.raises(UnknownNameError, match="anger"):
        Known(ORIGIN, {"angr": 0.5})
    with pytest.raises(DataError, match="valence must be a number from -1 to 1"):
        AffectState(valence=math.nan)


def test_what_nobody_would_hear_is_left_out() -> None:
    assert Decision({"anger": 0.009, "fear": -0.009, "sadness": 0.01}).strengths == {
        "sadness": 0.01
    }
