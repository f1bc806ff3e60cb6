"""p against permutations: plain loops, level where there is nothing, the price beside Holm's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from affectlens.core.permutations import orders, westfall_young
from affectlens.core.statistics import holm


def test_orders() -> None:
    assert {tuple(one) for one in orders(4, 7, 0, exact_to=4)} == set(
        itertools.permutations(range(4))
    )
    some = orders(5, 7, 0, exact_to=4)
    assert some.shape == (8, 5) and some[0].tolist() == [0, 1, 2, 3, 4]
    assert (np.sort(some, axis=1) == np.arange(5)).all()


def test_step_by_step_by_hand() -> None:
    real = np.array([3.0, 5.0, 1.0])  # of each column 0, 1, 2, 3 and 5, so all spread alike
    null = np.array([[5.0, 0, 0], [0, 1, 2], [1, 2, 3], [2, 3, 5]])
    alone, corrected = westfall_young(real, null)
    np.testing.assert_allclose(alone, [2 / 5, 1 / 5, 4 / 5])
    # 5 against the best of all three (5, 2, 3, 5); 3 against the best of the first and the third
    # (5, 2, 3, 5); 1 against the third alone, never below the one before.
    np.testing.assert_allclose(corrected, [4 / 5, 3 / 5, 4 / 5])


@pytest.mark.parametrize("seed", range(3))
def test_against_plain_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    real = random.normal(size=6).round(1) + np.linspace(0, 2, 6)
    null = random.normal(size=(19, 6)).round(1)
    alone, corrected = westfall_young(real, null)
    both = np.vstack([real, null])
    z = (both - both.mean(0)) / both.std(0)

    def highest_left(row: np.ndarray, score: float) -> float:
        return max(row[k] for k in range(6) if z[0, k] <= score)

    def step(score: float) -> float:
        return (1 + sum(highest_left(row, score) >= score - 1e-9 for row in z[1:])) / 20

    for i in range(6):
        alike = sum(row[i] >= real[i] - 1e-9 for row in null)
        assert alone[i] == pytest.approx((1 + alike) / 20)
        assert corrected[i] == pytest.approx(max(step(one) for one in z[0] if one >= z[0, i]))
    assert (corrected >= alone).all()
    for scale in (1e-6, 1e6, random.uniform(0.1, 10, size=6)):  # units change nothing
        np.testing.assert_allclose(westfall_young(real * scale + 1, null * scale + 1)[1], corrected)


def test_a_score_of_wide_spread_hides_no_other() -> None:
    random = np.random.default_rng(0)
    null = random.normal(size=(99, 2)) * [0.01, 1.0]
    alone, corrected = westfall_young(np.array([0.05, 0.3]), null)
    assert alone[0] == corrected[0] == pytest.approx(0.01)
    assert corrected[1] == alone[1] > 0.2


def test_one_score_is_not_corrected_and_none_stays_none() -> None:
    real, null = np.array([np.nan, 1.0]), np.array([[9.0, 0.0], [9.0, 2.0], [np.nan, 0.5]])
    alone, corrected = westfall_young(real, null)
    assert np.isnan(alone[0]) and np.isnan(corrected[0])
    assert alone[1] == corrected[1] == 2 / 4


def test_what_could_not_be_scored_counts_against_the_real_score() -> None:
    nothing = np.full((4, 1), np.nan)
    assert westfall_young(np.array([0.5]), nothing)[0][0] == 1
    alone, corrected = westfall_young(np.array([3.0, 9.0]), np.array([[0, 1.0], [np.nan, 2.0]]))
    np.testing.assert_allclose(alone, [2 / 3, 1 / 3])
    assert corrected.min() == pytest.approx(2 / 3)
    same = westfall_young(np.ones(2), np.ones((5, 2)))
    np.testing.assert_allclose(same, 1)


@pytest.mark.parametrize("together", [0.0, 0.9])
def test_where_there_is_nothing_one_in_twenty_families_is_below_one_in_twenty(
    together: float,
) -> None:
    random = np.random.default_rng(1)
    lowest = []
    for _ in range(3000):
        shared = random.normal(size=(20, 1))
        scores = together * shared + (1 - together) * random.normal(size=(20, 12))
        lowest.append(float(westfall_young(scores[0], scores[1:])[1].min()))
    below = np.mean(np.array(lowest) <= 0.05)
    assert abs(below - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 3000)


def test_it_can_find_what_holm_never_could() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(99, 1))
    null = 0.5 + 0.02 * (shared + random.normal(size=(99, 31)))
    real = np.full(31, 0.9)
    alone, corrected = westfall_young(real, null)
    np.testing.assert_allclose(corrected, 0.01)
    assert holm(alone).min() == pytest.approx(0.31)
