"""Metrics against counting by hand, brute force and scipy-free algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest

from affectlens.core import DataError
from affectlens.evaluation import metrics
from affectlens.evaluation.scoring import perplexity_ratio


def test_distinct_and_repetition_by_hand() -> None:
    assert metrics.distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert metrics.distinct_n(["A b a B"], 2) == pytest.approx(2 / 3)
    assert metrics.distinct_n(["a b c d", "x x x"], 2) == pytest.approx((1 + 1 / 2) / 2)
    assert metrics.distinct_n(["one"], 2) == 0.0
    assert metrics.repetition_rate(["a b c a b c a b c"], 3) == pytest.approx(1 - 3 / 7)
    assert metrics.repetition_rate(["a"], 3) == 0.0


def test_capitals_count_words_not_letters() -> None:
    assert metrics.capitals_rate(["I AM VERY tired now"]) == pytest.approx(1 / 3)
    assert metrics.capitals_rate(["I A"]) == 0.0


def test_harmonic_mean() -> None:
    assert metrics.harmonic([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.harmonic([1.0, 0.0, 1.0]) == 0.0


def test_fluency_is_linear_in_nats() -> None:
    assert metrics.fluency_score(-1.0) == 1.0
    assert metrics.fluency_score(math.log(4)) == pytest.approx(0.5)
    assert metrics.fluency_score(math.log(16)) == pytest.approx(0.0)
    assert metrics.fluency_score(99.0) == 0.0


def test_bootstrap_resamples_groups() -> None:
    """Ten identical rows per group carry no more information than one."""
    rng = np.random.default_rng(3)
    one = rng.normal(size=40)
    groups = [f"g{i}" for i in range(40)]
    narrow = metrics.bootstrap_ci(one, groups)
    repeated = metrics.bootstrap_ci(np.repeat(one, 10), list(np.repeat(groups, 10)))
    assert repeated == pytest.approx(narrow)
    by_row = metrics.bootstrap_ci(np.repeat(one, 10), [str(i) for i in range(400)])
    assert by_row[1] - by_row[0] < 0.5 * (narrow[1] - narrow[0])


def test_bootstrap_matches_normal_theory_and_custom_statistic() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=200)
    groups = [str(i) for i in range(200)]
    low, high = metrics.bootstrap_ci(values, groups)
    half = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    same = metrics.bootstrap_ci(values, groups, statistic=lambda v: float(v.mean()))
    assert same == pytest.approx((low, high))


def test_bootstrap_refuses_nonsense() -> None:
    with pytest.raises(DataError):
        metrics.bootstrap_ci([], [])
    with pytest.raises(DataError):
        metrics.bootstrap_ci([1.0], ["a", "b"])


def test_perplexity_ratio_pools_over_tokens() -> None:
    ratio = perplexity_ratio(np.array([1.0, 3.0]), [1, 3], np.array([1.0]), [7])
    assert ratio == pytest.approx(math.exp((1 + 9) / 4 - 1))
    with_empty = perplexity_ratio(np.array([1.0, np.nan, 3.0]), [1, 0, 3], np.array([1.0]), [7])
    assert with_empty == pytest.approx(ratio)
    with pytest.raises(DataError):
        perplexity_ratio(np.array([np.nan]), [0], np.array([1.0]), [7])
