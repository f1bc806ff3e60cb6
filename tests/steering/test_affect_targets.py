"""Places of valence and arousal as mixtures: known answers, and a search by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import lsq_linear, nnls

from affectlens.core import EMOTIONS, DataError
from affectlens.core.emotions import VAD
from affectlens.steering.affect_targets import NEARNESS, mixture_for, non_negative, place_of
from affectlens.steering.spec import SteeringSpec

GRID = [(v / 4, a / 4) for v in range(-4, 5) for a in range(-4, 5)]


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_place_of_an_emotion_is_that_emotion(emotion: str, dimensions: int) -> None:
    assert mixture_for(*VAD[emotion][:dimensions]) == {emotion: pytest.approx(1.0, abs=1e-3)}
    assert place_of({emotion: 1.0}) == VAD[emotion]


def test_the_origin_is_nothing() -> None:
    assert mixture_for(0, 0) == mixture_for(0, 0, 0) == {}
    assert place_of({}) == (0, 0, 0)


@pytest.mark.parametrize(("valence", "arousal"), GRID)
def test_it_is_the_best_mixture_by_another_solver(valence: float, arousal: float) -> None:
    """The same problem in scipy's bounded least squares, which shares no code with nnls."""
    t = np.array([valence, arousal])
    a = np.array([VAD[e][:2] for e in EMOTIONS])
    far = np.linalg.norm(a - t, axis=1)
    rows = np.vstack([a.T, math.sqrt(NEARNESS) * np.diag(far)])
    best = lsq_linear(rows, np.array([*t, *np.zeros(6)]), bounds=(0, np.inf), tol=1e-14).x
    best = best / max(1.0, best.sum())
    found = mixture_for(valence, arousal)
    assert sum(found.values()) <= 1 + 1e-3
    for emotion, strength in zip(EMOTIONS, best, strict=True):
        assert found.get(emotion, 0.0) == pytest.approx(strength, abs=0.011)


@pytest.mark.parametrize("seed", range(20))
def test_least_squares_are_those_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(9, 7))
    wanted = random.normal(size=9)
    assert np.allclose(non_negative(rows, wanted), nnls(rows, wanted)[0], atol=1e-6)


def test_places_within_reach_are_reached() -> None:
    for one, other in itertools.combinations(EMOTIONS, 2):
        middle = np.mean([VAD[one], VAD[other]], axis=0)
        found = place_of(mixture_for(*middle.tolist()))
        assert np.linalg.norm(np.array(found) - middle) < 0.1
    # Out of reach: nothing is both sad and pleasant, and the nearest is said, no stronger than 1.
    corner = mixture_for(-1, 1)
    assert sum(corner.values()) == pytest.approx(1, abs=1e-3)
    assert place_of(corner)[0] < -0.4 and place_of(corner)[1] > 0.4


def test_more_arousal_is_more_arousal() -> None:
    reached = [place_of(mixture_for(-0.5, a))[1] for a in (-0.2, 0.1, 0.4, 0.7)]
    assert reached == sorted(reached) and reached[-1] - reached[0] > 0.6


def test_only_emotions_that_may_be_mixed() -> None:
    assert set(mixture_for(-0.5, 0.6, emotions=("sadness", "fear"))) <= {"sadness", "fear"}
    own = {"calm": (0.3, -0.6, 0.1)}
    assert mixture_for(0.3, -0.6, emotions=("calm", "odd"), coordinates=own) == {"calm": 1.0}
    with pytest.raises(DataError, match="coordinates"):
        mixture_for(0.3, -0.6, emotions=("odd",))


@pytest.mark.parametrize("bad", [1.01, -2, math.nan, math.inf, "0.5", True, None])
def test_numbers_that_are_none(bad: object) -> None:
    with pytest.raises(DataError, match=r"valence must be a number from -1 to 1"):
        mixture_for(bad, 0.5)  # type: ignore[arg-type]


def test_specs_ask_for_places() -> None:
    spec = SteeringSpec.parse("valence=-0.6,arousal=0.7;mode=circuit")
    assert dict(spec.weights) == {k: v for k, v in sorted(mixture_for(-0.6, 0.7).items())}
    assert spec.mode == "circuit"
    assert SteeringSpec.parse(str(spec)) == spec
    assert SteeringSpec.parse({"valence": -0.6, "arousal": 0.7, "mode": "circuit"}) == spec
    assert SteeringSpec.combined(["valence=-0.6", "arousal=0.7;mode=circuit"]) == spec
    full = SteeringSpec.parse("valence=-0.62,arousal=0.82,dominance=-0.43")
    assert full == SteeringSpec({"fear": 1.0})
    assert not SteeringSpec.parse("valence=0,arousal=0")
    own = SteeringSpec.parse("valence=2", emotions=("valence", "anger"))
    assert dict(own.weights) == {"valence": 2}
    for text, said in (
        ("valence=0.5", "arousal is missing"),
        ("valence=0.5,arousal=0.1,anger=1", "one or the other"),
        ("valence=3,arousal=0.1", "from -1 to 1"),
        ("valence=0.4,arousal=-0.8", "No mixture of anger, .*comes nearer to valence 0.4, arousal"),
    ):
        with pytest.raises(DataError, match=said):
            SteeringSpec.parse(text)


def test_a_mixture_that_points_elsewhere_is_said(caplog: pytest.LogCaptureFixture) -> None:
    SteeringSpec.parse("valence=-0.6,arousal=0.7")
    SteeringSpec.parse("valence=-1,arousal=1")  # beyond all of them, but on the way
    assert not caplog.records
    assert SteeringSpec.parse("valence=0.5,arousal=-0.5")
    assert "the nearest mixture, happiness" in caplog.text
