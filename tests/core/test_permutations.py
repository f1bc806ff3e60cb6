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
    real = np.array([3.0, 5.0, 1.0])
    null = np.array([[4.0, 0, 0], [0, 0, 2.0], [0, 6.0, 0], [2.0, 2.0, 0.0]])
    alone, corrected = westfall_young(real, null)
    # By themselves: 4 of the first column, 6 of the second, 2 of the third.
    np.testing.assert_allclose(alone, [2 / 5, 2 / 5, 2 / 5])
    # 5 against the best of all three (4, 2, 6, 2); 3 against the best of the first and the third
    # (4, 2, 0, 2); 1 against the third alone, never below the one before.
    np.testing.assert_allclose(corrected, [2 / 5, 2 / 5, 2 / 5])
    _, steep = westfall_young(np.array([3.0, 7.0, -1.0]), null)
    np.testing.assert_allclose(steep, [2 / 5, 1 / 5, 1.0])


@pytest.mark.parametrize("seed", range(3))
def test_against_plain_loops(seed: int) -> None:
    random = np.random.default_rng(seed)
    real = random.normal(size=6).round(1) + np.linspace(0, 2, 6)
    null = random.normal(size=(19, 6)).round(1)
    alone, corrected = westfall_young(real, null)

    def highest_left(row: np.ndarray, score: float) -> float:
        return max(row[k] for k in range(6) if real[k] <= score)

    def step(score: float) -> float:
        return (1 + sum(highest_left(row, score) >= score - 1e-9 for row in null)) / 20

    for i in range(6):
        alike = sum(row[i] >= real[i] - 1e-9 for row in null)
        assert alone[i] == pytest.approx((1 + alike) / 20)
        assert corrected[i] == pytest.approx(max(step(one) for one in real if one >= real[i]))
    assert (corrected >= alone).all()


def test_one_score_is_not_corrected_and_none_stays_none() -> None:
    real, null = np.array([np.nan, 1.0]), np.array([[9.0, 0.0], [9.0, 2.0], [np.nan, 0.5]])
    alone, corrected = westfall_young(real, null)
    assert np.isnan(alone[0]) and np.isnan(corrected[0])
    assert alone[1] == corrected[1] == 2 / 4


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
