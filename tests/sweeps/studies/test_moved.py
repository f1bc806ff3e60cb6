"""Distances and their chance, against counting all there is."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from affectlens.sweeps.studies.moved import agreement_by_chance, beyond_random, variation

RANDOM = np.random.default_rng(0)


def shares(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), n)


def test_variation_and_its_p_are_those_of_all_swaps() -> None:
    now, before = shares(10, 0), shares(10, 1)
    now[:, 0] += 0.4
    now /= now.sum(1, keepdims=True)
    groups = [f"g{i // 2}" for i in range(10)]
    found = variation(now, before, groups, 0, swaps=4000)
    every = []
    for signs in product((1, -1), repeat=5):
        each = np.repeat(signs, 2)[:, None] * (now - before)
        every.append(0.5 * np.abs(each.mean(0)).sum())
    assert found.value == pytest.approx(0.5 * np.abs(now.mean(0) - before.mean(0)).sum())
    assert found.null == pytest.approx(np.mean(every), abs=0.01)
    assert found.p == pytest.approx((np.array(every) >= every[0] - 1e-12).mean(), abs=0.02)


def test_conditions_that_do_nothing_give_every_p_alike() -> None:
    p = [
        variation(shares(40, 2 * i), shares(40, 2 * i + 1), [str(j) for j in range(40)], i, 199).p
        for i in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) < 0.1) < 0.25


def test_agreement_by_chance_is_the_mean_over_all_orders() -> None:
    said, truth = np.array([0, 0, 1, 2, 0, 1]), np.array([0, 0, 0, 2, 1, 1])
    every = [float((said == np.array(one)).mean()) for one in permutations(truth)]
    chance, p = agreement_by_chance(said, truth, list("abcdef"), 500)
    assert chance == pytest.approx(np.mean(every)) and 2**-5 <= p <= 1
    same, _ = np.repeat([0, 1, 2], 20), None
    groups = [str(i) for i in range(60)]
    assert agreement_by_chance(same, same, groups, 500)[1] < 0.01
    assert agreement_by_chance(same, RANDOM.permutation(same), groups, 500)[1] > 0.01


def test_a_planted_shift_lies_along_its_direction_and_no_other() -> None:
    before = RANDOM.standard_normal((60, 40))
    along = np.linalg.qr(RANDOM.standard_normal((40, 2)))[0]
    now = before + 2.0 * along[:, 0]
    shift, size, p = beyond_random(now, before, along, 0)
    assert shift[0] == pytest.approx(2.0 / (before @ along[:, 0]).std())
    assert abs(shift[1]) < 1e-9 and p[0] < 0.01 and p[1] > 0.9
    assert size == pytest.approx(2 / np.sqrt(40) * np.sqrt(2 / np.pi), rel=0.25)
