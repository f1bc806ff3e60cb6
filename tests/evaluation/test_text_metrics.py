"""Metrics against counting by hand, brute force and scipy-free algebra."""

from __future__ import annotations

import math

import numpy as np
import pytest

from affectlens.core import DataError
from affectlens.evaluation import text_metrics as metrics
from affectlens.evaluation.perplexity import perplexity_ratio


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


def test_one_group_gives_no_interval() -> None:
    assert all(math.isnan(end) for end in metrics.bootstrap_ci([0.0, 1.0], ["a", "a"]))
    one = metrics.paired_bootstrap([1.0, 0.0], [0.0, 0.0], ["a", "a"])
    assert one.mean == 0.5
    assert math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.p)


def test_paired_bootstrap_by_brute_force() -> None:
    """Groups of unlike sizes; every draw put together row by row."""
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 9, size=50)]
    first, second = (rng.random(50) < 0.7).astype(float), rng.random(50)
    found = metrics.paired_bootstrap(first, second, groups, draws=400, level=0.9, seed=4)
    names = sorted(set(groups))
    mean = sum(a - b for a, b in zip(first, second, strict=True)) / 50
    drawn = np.random.default_rng(4).integers(0, len(names), size=(400, len(names)))
    samples = []
    for one in drawn:
        rows = [i for k in one for i, g in enumerate(groups) if g == names[k]]
        sample = sum(first[i] - second[i] for i in rows) / len(rows)
        samples.append(mean + (sample - mean) * math.sqrt(len(names) / (len(names) - 1)))
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.05, 0.95])))
    below = sum(s <= 0 for s in samples)
    above = sum(s >= 0 for s in samples)
    assert found.p == pytest.approx(min(1.0, 2 * (1 + min(below, above)) / 401))
    assert found.groups == len(names)
    other = metrics.paired_bootstrap(second, first, groups, draws=400, level=0.9, seed=4)
    assert (other.mean, other.p) == pytest.approx((-found.mean, found.p))


def test_paired_bootstrap_agrees_with_the_t_test() -> None:
    """One row per group and plain numbers: the interval of textbooks (t, 39 degrees: 2.023)."""
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=40), rng.normal(loc=-0.4, size=40)
    found = metrics.paired_bootstrap(first, second, [str(i) for i in range(40)])
    d = first - second
    half = 2.023 * d.std(ddof=1) / math.sqrt(40)
    assert found.low == pytest.approx(d.mean() - half, abs=0.04)
    assert found.high == pytest.approx(d.mean() + half, abs=0.04)


def test_level_on_planted_nulls() -> None:
    """Two arms of equal accuracy that share how hard a scenario is: about 5 % are called unlike."""
    rng = np.random.default_rng(2)
    groups = list(np.repeat([f"s{i}" for i in range(40)], 6))
    rejected, covered, trials = 0, 0, 600
    for trial in range(trials):
        hard = np.repeat(rng.beta(1.5, 1.5, size=40), 6)  # chance of a hit, scenario by scenario
        first, second = (rng.random((2, 240)) < hard).astype(float)
        found = metrics.paired_bootstrap(first, second, groups, draws=300, seed=trial)
        rejected += found.p < 0.05
        covered += found.low <= 0 <= found.high
    assert 0.025 < rejected / trials < 0.08
    assert covered / trials == pytest.approx(1 - rejected / trials, abs=0.01)


def test_power_on_a_planted_difference() -> None:
    rng = np.random.default_rng(3)
    groups = list(np.repeat([f"s{i}" for i in range(40)], 6))
    first, second = (rng.random(240) < 0.9).astype(float), (rng.random(240) < 0.5).astype(float)
    found = metrics.paired_bootstrap(first, second, groups)
    assert found.p < 0.001 and 0.25 < found.low < found.mean < found.high < 0.55


def test_equal_arms_are_not_told_apart() -> None:
    same = metrics.paired_bootstrap([0.1, 0.7, 0.2], [0.1, 0.7, 0.2], ["a", "b", "c"])
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(DataError, match="paired"):
        metrics.paired_bootstrap([1.0], [1.0, 2.0], ["a"])
    with pytest.raises(DataError, match="paired"):
        metrics.paired_bootstrap([], [], [])
