"""Dose-responses and the check of what is heard: by other solvers, by hand, on planted curves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import linregress

from affectlens.core import DataError
from affectlens.evaluation.dose_response import fit_dose_response
from affectlens.evaluation.intensity import (
    DosePoint,
    check_emotion,
    dose_point,
    heard_in,
    heard_responses,
    spread_at,
)
from affectlens.evaluation.judges.base import Verdicts
from affectlens.evaluation.reply import Reply


def test_a_rising_curve_is_kept_as_it_is() -> None:
    found = fit_dose_response([0, 1, 2, 3], [0.1, 0.2, 0.6, 0.9])
    assert found.doses == (0, 1, 2, 3)
    assert found.values == pytest.approx((0.1, 0.2, 0.6, 0.9))


def test_level_stretches_are_drawn_together_at_their_weighted_middle() -> None:
    """By hand: 0.5 and 0.3 pool to (0.5·1 + 0.3·3)/4 = 0.35, at dose (2·1 + 4·3)/4 = 3.5."""
    found = fit_dose_response([0, 2, 4, 6], [0.1, 0.5, 0.3, 0.8], [1, 1, 3, 1])
    assert found.doses == pytest.approx((0, 3.5, 6))
    assert found.values == pytest.approx((0.1, 0.35, 0.8))
    # What pools with no steering stays at dose 0: there the pack must do nothing.
    found = fit_dose_response([0, 1, 2], [0.3, 0.1, 0.9])
    assert found.doses == (0, 2) and found.values == pytest.approx((0.2, 0.9))


@pytest.mark.parametrize("seed", range(5))
def test_the_heights_are_those_of_least_squares(seed: int) -> None:
    """Against a general solver under the constraint that the line never falls."""
    random = np.random.default_rng(seed)
    doses, weights = np.arange(6.0), random.integers(1, 9, 6).astype(float)
    values = np.sort(random.random(6)) + random.normal(0, 0.1, 6)
    rising = [
        {"type": "ineq", "fun": lambda h, i=i: h[i + 1] - h[i]}  # type: ignore[misc]
        for i in range(5)
    ]
    best = minimize(
        lambda h: float((weights * (h - values) ** 2).sum()),
        np.full(6, values.mean()),
        constraints=rising,
        tol=1e-12,
    ).x
    found = fit_dose_response(doses.tolist(), values.tolist(), weights.tolist())
    for dose, height in zip(found.doses[1:], found.values[1:], strict=True):
        near = np.abs(best - height).min()
        assert near < 1e-3, (dose, height)
    assert found.values[0] == pytest.approx(best[0], abs=1e-3)


def test_several_values_of_a_dose_are_averaged() -> None:
    found = fit_dose_response([0, 0, 1, 1], [0.1, 0.3, 0.5, 0.9], [1, 1, 3, 1])
    assert found.values == pytest.approx((0.2, 0.6))


def test_a_planted_curve_comes_back() -> None:
    random = np.random.default_rng(0)
    doses = np.linspace(0, 2, 9)
    truth = 1 / (1 + np.exp(-6 * (doses - 1)))
    shares = random.binomial(400, truth) / 400
    found = fit_dose_response(doses.tolist(), shares.tolist())
    for asked in (0.25, 0.5, 0.75):
        dose = found.dose(asked)
        assert 1 / (1 + math.exp(-6 * (dose - 1))) == pytest.approx(asked, abs=0.06)


@pytest.mark.parametrize(
    ("doses", "values", "said"),
    [
        ([0, 1, 2], [0.5, 0.4, 0.3], "does not rise"),
        ([0.5, 1], [0, 1], "0 among them"),
        ([0, 1], [0, math.nan], "finite"),
        ([], [], "0 among them"),
        ([0, 1], [0.1], "2 doses, 1 values"),
    ],
)
def test_what_cannot_be_fitted(doses: list[float], values: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit_dose_response(doses, values)


def point(emotion: str, dose: float, heard: float, ratio: float = 1.0) -> DosePoint:
    return DosePoint(emotion, dose, heard, heard, heard / 2, ratio, 10)


def test_doses_that_break_the_text_are_out_of_range() -> None:
    points = [
        point("anger", 2, 0.8, 3.0), point("anger", 0, 0.1), point("anger", 3, 0.95, 4.5),
        point("anger", 4, 0.99, 2.0), point("anger", 1, 0.4, 1.5),
        point("fear", 0, 0.2), point("fear", 1, 0.1),
    ]  # fmt: skip
    found, silent = heard_responses(points, max_perplexity_ratio=4.0)
    assert found["anger"].doses == (0, 1, 2)  # nothing behind the first that broke
    assert found["anger"].values == pytest.approx((0.1, 0.4, 0.8))
    assert set(found) == {"anger"} and "does not rise" in silent["fear"]
    masked, _ = heard_responses(points, max_perplexity_ratio=4.0, masked=True)
    assert masked["anger"].values == pytest.approx((0.05, 0.2, 0.4))
    all_, _ = heard_responses(points, max_perplexity_ratio=9.0)
    assert all_["anger"].doses[-1] == 4


class Counting:
    """Hears anger as often as a text says so, and counts what it is asked."""

    name, fingerprint, labels = "counting", "x", ("anger", "neutral")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        self.asked += texts
        p = np.array([min(1.0, text.count("grr") / 4) for text in texts])
        return Verdicts.likeliest(self.labels, np.stack([p, 1 - p], axis=1))


def reply(text: str, nll: float = 1.0, tokens: int = 4) -> Reply:
    return Reply("a", "e", "g", "", "anger", "p", text, tokens, nll)


def test_what_is_heard_is_the_judges_probability() -> None:
    judge = Counting()
    texts = ["grr", "", "grr grr grr grr", "grr", "hm"]
    found = heard_in(judge, texts, ["anger", "fear"])
    assert found[:, 0].tolist() == [0.25, 0, 1, 0.25, 0] and not found[:, 1].any()
    assert judge.asked == ["grr", "grr grr grr grr", "hm"]
    one = dose_point("anger", 0.5, [reply("grr"), reply("grr grr grr", 3.0)], [reply("hm")], judge)
    assert (one.heard, one.share, one.replies) == (0.5, 0.5, 2)
    assert one.perplexity_ratio == pytest.approx(math.exp(1.0))
    empty = dose_point("anger", 0.5, [reply("", math.nan, 0)], [reply("hm")], judge)
    assert empty.perplexity_ratio == math.inf


def test_the_check_is_a_straight_line() -> None:
    random = np.random.default_rng(1)
    heard = {x: np.clip(0.1 + 0.8 * x + random.normal(0, 0.05, 7), 0, 1).tolist()
             for x in (0.25, 0.5, 0.75, 1.0)}  # fmt: skip
    found = check_emotion("anger", heard, [0.1, 0.2], 0.9)
    line = linregress(list(heard), [np.mean(row) for row in heard.values()])
    assert found.slope == pytest.approx(line.slope) and found.r2 == pytest.approx(line.rvalue**2)
    assert found.unsteered == pytest.approx(0.15) and found.highest == 0.9
    table = np.array(list(heard.values()))
    ordered = [all(b > a - 0.02 for a, b in itertools.pairwise(c)) for c in table.T.tolist()]
    assert found.ordered == pytest.approx(np.mean(ordered))


def test_order_by_hand() -> None:
    heard = {0.25: [0.1, 0.5, 0.2], 0.5: [0.2, 0.4, 0.19], 1.0: [0.9, 0.9, 0.9]}
    found = check_emotion("anger", heard, [0.0], 1.0)
    assert found.ordered == pytest.approx(2 / 3)  # 0.2 and 0.19 are a tie
    assert found.pairs == pytest.approx(4 / 6)
    assert found.heard == {0.25: pytest.approx(0.8 / 3), 0.5: pytest.approx(0.79 / 3), 1.0: 0.9}
    other = check_emotion("fear", {0.25: [0.1], 0.5: [0.7]}, [0.0], 1.0)
    assert spread_at([found, other], 0.5) == pytest.approx(0.7 - 0.79 / 3)
    level = check_emotion("fear", {0.25: [0.1], 0.5: [0.1]}, [0.0], 1.0)
    assert level.r2 == 0 and level.slope == pytest.approx(0)
    wrongs: list[Any] = [{}, {0.5: [1.0]}, {0.25: [], 0.5: []}, {0.25: [1], 0.5: [1, 2]}]
    for wrong in wrongs:
        with pytest.raises(DataError, match="two or more"):
            check_emotion("fear", wrong, [0.0], 1.0)
