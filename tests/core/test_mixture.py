"""A point on the plane of valence and arousal as a mixture, against algebra and a grid search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from affectlens.core import EMOTIONS
from affectlens.core.emotions import EmotionPlane, coordinates, mixture_at

PLANE = EmotionPlane.of(EMOTIONS)
POINTS = [(v / 7, a / 7) for v in range(-7, 8) for a in range(-7, 8)]


def lies_at(weights: dict[str, float]) -> tuple[float, float]:
    found = [(w, coordinates(label)) for label, w in weights.items()]
    return (
        sum(w * at.valence for w, at in found if at),
        sum(w * at.arousal for w, at in found if at),
    )


def nearest_in_hull(point: tuple[float, float]) -> tuple[float, float]:
    """By least squares over all convex combinations of the corners (its sum as a heavy row)."""
    corners = np.array(PLANE.points).T
    rows = np.vstack([corners, 1e4 * np.ones(corners.shape[1])])
    found = lsq_linear(rows, [*point, 1e4], bounds=(0, 1), tol=1e-12)
    return tuple(corners @ found.x)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_at_its_own_point_an_emotion_is_alone(emotion: str) -> None:
    at = coordinates(emotion)
    assert at is not None
    mixed = mixture_at(PLANE, at.valence, at.arousal)
    assert mixed.weights == pytest.approx({emotion: 1.0})
    half = mixture_at(PLANE, at.valence / 2, at.arousal / 2).weights
    assert lies_at(half) == pytest.approx((at.valence / 2, at.arousal / 2))


def test_nothing_is_felt_at_the_origin() -> None:
    assert mixture_at(PLANE, 0.0, 0.0).weights == {}


@pytest.mark.parametrize("point", POINTS)
def test_a_mixture_lies_where_it_was_asked_for_or_as_near_as_there_is(
    point: tuple[float, float],
) -> None:
    mixed = mixture_at(PLANE, *point)
    assert all(0 <= w <= 1 for w in mixed.weights.values())
    assert sum(mixed.weights.values()) <= 1 + 1e-9 and len(mixed.weights) <= 3
    assert lies_at(mixed.weights) == pytest.approx(mixed.reached, abs=1e-9)
    assert mixed.reached == pytest.approx(nearest_in_hull(point), abs=2e-3)


def test_it_moves_without_jumps() -> None:
    """On fine paths, one around the rim and one across, no share changes by more than a little."""
    around = [(0.9 * math.cos(t / 1000), 0.9 * math.sin(t / 1000)) for t in range(6284)]
    across = [(-0.9 + k / 1000, 0.31) for k in range(1800)]
    for path in (around, across):
        mixed = [mixture_at(PLANE, *point).weights for point in path]
        for before, after in itertools.pairwise(mixed):
            step = max(abs(before.get(e, 0) - after.get(e, 0)) for e in EMOTIONS)
            assert step < 0.05, (before, after)


def test_labels_at_one_point_share_it_and_others_are_named() -> None:
    plane = EmotionPlane.of(["happiness", "joy", "sadness", "boredom", "neutral"])
    mixed = mixture_at(plane, 0.81, 0.51).weights
    assert mixed == pytest.approx({"happiness": 0.5, "joy": 0.5})
    assert plane.unplaced == ("boredom",)


@pytest.mark.parametrize("labels", [(), ("anger",), ("boredom",), ("optimism", "hope")])
def test_few_labels_are_a_line_or_a_point(labels: tuple[str, ...]) -> None:
    plane = EmotionPlane.of(labels)
    for point in POINTS:
        mixed = mixture_at(plane, *point)
        assert lies_at(mixed.weights) == pytest.approx(mixed.reached, abs=1e-9)
    placed = [label for label in labels if label not in plane.unplaced]
    for label in placed:
        at = coordinates(label)
        assert at is not None
        found = mixture_at(plane, at.valence, at.arousal).weights
        assert sum(found.values()) == pytest.approx(1) and set(found) == set(placed)


def test_the_plane_is_plain_json() -> None:
    import json

    assert json.loads(json.dumps(PLANE.to_dict()))["unplaced"] == []
