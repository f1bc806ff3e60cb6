"""The choice of strengths on curves whose best point is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from affectlens.core import DataError
from affectlens.evaluation.intensity import tuned_responses
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.tuning import (
    StrengthPoint,
    best_arm,
    beyond,
    choose_strengths,
    pooled_by_strength,
)


def curve(arm: str, emotion: str, rows: list[tuple[float, float, float]]) -> list[StrengthPoint]:
    return [StrengthPoint(arm, emotion, s, h, ratio, h) for s, h, ratio in rows]


def test_best_after_smoothing_not_a_lucky_spike() -> None:
    lucky = [(1, 0.50, 1), (2, 0.0, 1), (3, 0.45, 1), (4, 0.48, 1), (5, 0.45, 1)]
    assert choose_strengths(curve("circuit", "anger", lucky)) == {"circuit": {"anger": 4}}


def test_price_limit_holds() -> None:
    rows = [(1, 0.2, 1.5), (2, 0.4, 3.0), (3, 0.9, 4.5)]
    assert choose_strengths(curve("residual", "fear", rows))["residual"]["fear"] == 2
    dear = [(1, 0.2, 5.0), (2, 0.4, 9.0)]
    assert choose_strengths(curve("residual", "fear", dear))["residual"]["fear"] == 1


def test_a_strength_that_silences_the_model_is_not_chosen_and_ends_nothing() -> None:
    heard = Reply("a", "e", "g", "", "fear", "p", "Well.", 2, 3.0)
    silent = replace(heard, text="", tokens=0, nll=math.nan)
    ratio = ratio_of_replies([silent, silent], [heard, heard])
    rows = [(1, 0.2, 1.5), (2, 0.9, ratio)]
    assert choose_strengths(curve("residual", "fear", rows))["residual"]["fear"] == 1


def test_order_of_points_does_not_matter_and_ties_take_the_weaker() -> None:
    rows = curve("m", "joy", [(1, 0.3, 1), (2, 0.3, 1), (3, 0.3, 1)])
    assert choose_strengths(rows[::-1]) == choose_strengths(rows) == {"m": {"joy": 1}}


def test_nothing_to_choose_from() -> None:
    with pytest.raises(DataError):
        choose_strengths([])


def test_pooling() -> None:
    points = [*curve("m", "a", [(1, 0.2, 1.0)]), *curve("m", "b", [(1, 0.6, 4.0)])]
    accuracy, ratio = pooled_by_strength(points)["m", 1]
    assert accuracy == pytest.approx(0.4)
    assert ratio == pytest.approx(2.0)


def test_pooling_leaves_out_strengths_that_some_emotions_lack() -> None:
    points = [
        *curve("m", "a", [(1, 0.2, 1.0), (2, 0.9, 1.0)]),
        *curve("m", "b", [(1, 0.6, 4.0)]),
        *curve("n", "a", [(2, 0.5, 1.0)]),
    ]
    assert set(pooled_by_strength(points)) == {("m", 1), ("n", 2)}


def test_a_choice_at_the_end_asks_for_more() -> None:
    rising = curve("m", "up", [(1, 0.1, 1), (2, 0.2, 1), (3, 0.9, 1)])
    falling = curve("m", "down", [(4, 0.9, 1), (8, 0.2, 1), (9, 0.1, 1)])
    inside = curve("m", "in", [(1, 0.1, 1), (2, 0.9, 1), (3, 0.1, 1)])
    points = [*rising, *falling[::-1], *inside]
    assert beyond(points, choose_strengths(points)) == {("m", "up"): 4.5, ("m", "down"): 2.0}
    # Beyond the limit of fluency there is nothing to look for.
    points = curve("m", "a", [(1, 0.1, 1), (2, 0.5, 2), (3, 0.9, 5)])
    assert beyond(points, choose_strengths(points)) == {}
    # All too dear: weaker ones are to be tried.
    points = curve("m", "a", [(1, 0.1, 5), (2, 0.5, 6)])
    assert beyond(points, choose_strengths(points)) == {("m", "a"): 0.5}
    # Never heard: all strengths score alike, and only a stronger one may be heard.
    points = curve("m", "a", [(1, 0.0, 1), (2, 0.0, 2)])
    assert choose_strengths(points) == {"m": {"a": 1}}
    assert beyond(points, choose_strengths(points)) == {("m", "a"): 4.0}
    points = curve("m", "a", [(1, 0.0, 1), (2, 0.0, 5)])
    assert beyond(points, choose_strengths(points)) == {}
    with pytest.raises(DataError, match="two"):
        beyond(curve("m", "a", [(1, 0.1, 5)]), {"m": {"a": 1.0}})


def test_the_best_arm_is_heard_best_without_feeling_words() -> None:
    def at(arm: str, emotion: str, strength: float, masked: float | None) -> StrengthPoint:
        return StrengthPoint(arm, emotion, strength, 0.5, 1.0, 0.9, masked, 0.1)

    points = [at("a", "anger", 1, 0.2), at("a", "anger", 2, 0.9), at("a", "fear", 1, 0.3),
              at("b", "anger", 1, 0.3), at("b", "fear", 3, 0.4)]  # fmt: skip
    chosen = {"a": {"anger": 1.0, "fear": 1.0}, "b": {"anger": 1.0, "fear": 3.0}}
    assert best_arm(points, chosen, ["a", "b"]) == "b"
    assert best_arm(points, {**chosen, "a": {"anger": 2.0, "fear": 1.0}}, ["a", "b"]) == "a"
    assert best_arm(points, chosen, ["a"]) == "a" and best_arm(points, chosen, []) is None
    unknown = [*points[:-1], at("b", "fear", 3, None)]
    assert best_arm(unknown, chosen, ["a", "b"]) is None


def test_strengths_that_were_tried_are_a_first_calibration() -> None:
    rows = [("anger", 1.0, 0.4, 1.5), ("anger", 2.0, 0.8, 3.0), ("anger", 4.0, 1.0, 9.0),
            ("fear", 1.0, 0.0, 1.0)]  # fmt: skip
    points = [StrengthPoint("a", e, s, h, r, h, h, 0.1) for e, s, h, r in rows]
    points.append(StrengthPoint("b", "anger", 0.5, 1.0, 1.0, 1.0, 1.0, 0.1))
    found = tuned_responses(points, "a", max_perplexity_ratio=4.0)
    assert set(found) == {"anger"}
    assert found["anger"].doses == (0, 1, 2)
    assert found["anger"].values == pytest.approx((0.1, 0.4, 0.8))
    old = [StrengthPoint("a", "anger", 1.0, 0.4, 1.5, 0.4)]
    assert tuned_responses(old, "a", max_perplexity_ratio=4.0) == {}


def test_a_strength_without_a_verdict_is_neither_chosen_nor_a_neighbour() -> None:
    nan = math.nan
    for rows, best in (
        ([(0.5, nan, 1), (1, 0.5, 1), (2, 0.8, 1)], 2),
        ([(0.5, 0.1, 1), (1, 0.2, 1), (2, 0.9, 1), (4, nan, 1)], 2),
        ([(0.5, 0.1, 1), (1, nan, 1), (2, 0.9, 1)], 2),
    ):
        assert choose_strengths(curve("m", "joy", rows)) == {"m": {"joy": best}}
    with pytest.raises(DataError, match="no verdict on any reply of m with joy"):
        choose_strengths(curve("m", "joy", [(1, nan, 1), (2, nan, 1)]))
    silent = curve("m", "joy", [(1, nan, 1), (2, 0.0, 1)])
    assert beyond(silent, {"m": {"joy": 2}}) == {("m", "joy"): 4}
