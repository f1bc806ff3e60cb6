"""Intervals and differences against brute force, scipy and textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from affectlens.core import DataError
from affectlens.core.statistics import (
    against_draws,
    bootstrap_interval,
    holm,
    paired_difference,
    times_drawn,
)


@pytest.mark.parametrize("random", [7, torch.Generator().manual_seed(7)])
def test_every_draw_has_as_many_clusters_as_there_are(random: int | torch.Generator) -> None:
    times = times_drawn(6, 4000, random)
    assert times.shape == (4000, 6) and (times.sum(1) == 6).all()
    # A cluster is drawn Binomial(6, 1/6) times.
    for k in range(4):
        assert (times == k).mean() == pytest.approx(stats.binom.pmf(k, 6, 1 / 6), abs=0.01)


def test_numbers_drawn_before_are_drawn_again() -> None:
    """Seeds of either generator mean what they always meant, draw by draw."""
    by_numpy = np.random.default_rng(3).integers(0, 5, size=(20, 5))
    by_torch = torch.randint(5, (20, 5), generator=torch.Generator().manual_seed(3)).numpy()
    for drawn, random in ((by_numpy, 3), (by_torch, torch.Generator().manual_seed(3))):
        expected = [[list(draw).count(cluster) for cluster in range(5)] for draw in drawn]
        assert times_drawn(5, 20, random).tolist() == expected


def test_interval_by_brute_force() -> None:
    """Clusters of unlike sizes; every draw put together row by row, several series at once."""
    rng = np.random.default_rng(1)
    groups = [f"g{i}" for i in rng.integers(0, 7, size=40)]
    values = rng.random((3, 40))
    found = bootstrap_interval(values, groups, draws=300, level=0.8, random=9)
    names = sorted(set(groups))
    drawn = np.random.default_rng(9).integers(0, len(names), size=(300, len(names)))
    for series, ends in zip(values, found, strict=True):
        means = []
        for one in drawn:
            rows = [i for k in one for i, g in enumerate(groups) if g == names[k]]
            means.append(sum(series[i] for i in rows) / len(rows))
        assert ends == pytest.approx(np.quantile(means, [0.1, 0.9]))


def test_interval_of_single_rows_is_that_of_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    found = bootstrap_interval(values, range(60), draws=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_p_of_single_rows_is_near_that_of_a_sign_flip_test() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=50), rng.normal(loc=0.35, size=50)
    found = paired_difference(first, second, range(50))
    theirs = stats.permutation_test(
        (first - second,), np.mean, permutation_type="samples", n_resamples=9999, rng=rng
    )
    assert found.p == pytest.approx(theirs.pvalue, abs=0.03)


def test_bootstrap_resamples_groups() -> None:
    """Ten identical rows per group carry no more information than one."""
    rng = np.random.default_rng(3)
    one = rng.normal(size=40)
    groups = [f"g{i}" for i in range(40)]
    narrow = bootstrap_interval(one, groups)
    repeated = bootstrap_interval(np.repeat(one, 10), list(np.repeat(groups, 10)))
    assert repeated == pytest.approx(narrow)
    by_row = bootstrap_interval(np.repeat(one, 10), [str(i) for i in range(400)])
    assert by_row[1] - by_row[0] < 0.5 * (narrow[1] - narrow[0])


def test_bootstrap_matches_normal_theory() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=200)
    groups = [str(i) for i in range(200)]
    low, high = bootstrap_interval(values, groups)
    half = 1.96 * values.std() / math.sqrt(200)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_bootstrap_refuses_nonsense() -> None:
    with pytest.raises(DataError):
        bootstrap_interval([], [])
    with pytest.raises(DataError):
        bootstrap_interval([1.0], ["a", "b"])


def test_one_group_gives_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([0.0, 1.0], ["a", "a"]))
    one = paired_difference([1.0, 0.0], [0.0, 0.0], ["a", "a"])
    assert one.mean == 0.5
    assert math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.p)


def test_paired_difference_by_brute_force() -> None:
    """Groups of unlike sizes; every draw put together row by row."""
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 9, size=50)]
    first, second = (rng.random(50) < 0.7).astype(float), rng.random(50)
    found = paired_difference(first, second, groups, draws=400, level=0.9, random=4)
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
    assert found.clusters == len(names)
    other = paired_difference(second, first, groups, draws=400, level=0.9, random=4)
    assert (other.mean, other.p) == pytest.approx((-found.mean, found.p))


def test_paired_difference_agrees_with_the_t_test() -> None:
    """One row per group and plain numbers: the interval of textbooks (t, 39 degrees: 2.023)."""
    rng = np.random.default_rng(8)
    first, second = rng.normal(size=40), rng.normal(loc=-0.4, size=40)
    found = paired_difference(first, second, [str(i) for i in range(40)])
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
        found = paired_difference(first, second, groups, draws=300, random=trial)
        rejected += found.p < 0.05
        covered += found.low <= 0 <= found.high
    assert 0.025 < rejected / trials < 0.08
    assert covered / trials == pytest.approx(1 - rejected / trials, abs=0.01)


def test_power_on_a_planted_difference() -> None:
    rng = np.random.default_rng(3)
    groups = list(np.repeat([f"s{i}" for i in range(40)], 6))
    first, second = (rng.random(240) < 0.9).astype(float), (rng.random(240) < 0.5).astype(float)
    found = paired_difference(first, second, groups)
    assert found.p < 0.001 and 0.25 < found.low < found.mean < found.high < 0.55


@pytest.mark.parametrize("clusters", range(2, 13))
def test_few_clusters_never_show_more_than_a_sign_test_could(clusters: int) -> None:
    """All point one way by as much: no draw crosses zero, yet signs agree by chance."""
    found = paired_difference([1.0] * clusters, [0.0] * clusters, range(clusters))
    assert found.p == pytest.approx(max(stats.binomtest(0, clusters).pvalue, 2 / 10_001), rel=1e-9)


def test_a_draw_like_the_others_is_not_told_from_them() -> None:
    """Own is one more draw: over rows alone nearly every one is, over draws 5 % are."""
    rng = np.random.default_rng(6)
    over_rows, both, trials = 0, 0, 400
    for trial in range(trials):
        level = rng.normal(size=11)  # how much each condition does
        rows = level[:, None] + rng.normal(scale=0.3, size=(11, 200))
        own, draws = rows[0], rows[1:]
        told = against_draws(own, draws, range(200), samples=200, random=trial)
        alone = paired_difference(own, draws.mean(0), range(200), draws=200, random=trial)
        over_rows += alone.p < 0.05
        both += told.p < 0.05
        assert (told.mean, told.low, told.high) == (alone.mean, alone.low, alone.high)
    assert over_rows / trials > 0.7
    assert 0.02 < both / trials < 0.08


def test_p_over_draws_is_that_of_one_more_observation() -> None:
    """The prediction interval of a normal sample, by hand."""
    rng = np.random.default_rng(7)
    draws = rng.normal(size=(6, 400))
    draws += np.array([0.0, 0.4, -0.3, 0.1, -0.2, 0.3])[:, None]
    own = rng.normal(size=400) + 0.9
    found = against_draws(own, draws, range(400))
    means = draws.mean(1)
    far = (own.mean() - means.mean()) / (means.std(ddof=1) * math.sqrt(1 + 1 / 6))
    assert found.p == pytest.approx(2 * stats.t.sf(far, 5), rel=1e-9)


@pytest.mark.parametrize("per_row", [2, 4, 12])
def test_draws_on_some_rows_each_have_the_right_level(per_row: int) -> None:
    """Rows differ by far more than draws do; own is one more draw, or one that stands out."""
    rng = np.random.default_rng(per_row)
    false, true, trials = 0, 0, 300
    for trial in range(trials):
        rows = rng.normal(scale=3, size=24) + rng.normal(scale=0.3, size=13)[:, None]
        rows += rng.normal(scale=0.3, size=rows.shape)
        for d, row in enumerate(rows[1:].T):
            row[rng.permutation(12)[: 12 - per_row]] = np.nan
            assert (~np.isnan(row)).sum() == per_row, d
        false += against_draws(rows[0], rows[1:], range(24), samples=200, random=trial).p < 0.05
        told = against_draws(rows[0] + 2, rows[1:], range(24), samples=2000, random=trial)
        true += told.p < 0.01
    assert false / trials < 0.08
    assert true / trials > 0.9


def test_where_each_row_has_a_draw_of_its_own_rows_decide() -> None:
    """One that no row has seen does not count; a single one says nothing; equal ones leave rows."""
    own = np.array([1.0, 2.0, 3.0, 4.0])
    draws = np.array([[0.0, 0.0, np.nan, np.nan], [np.nan, np.nan, 1.0, 1.0], [np.nan] * 4])
    found = against_draws(own, draws, range(4))
    assert found == paired_difference(own, [0.0, 0.0, 1.0, 1.0], range(4))
    assert found.mean == pytest.approx(2.0)
    assert against_draws(own, draws[:1, :2].repeat(2, axis=1), range(4)).p == 1.0
    same = against_draws(own, np.zeros((3, 4)), range(4))
    assert same.p == pytest.approx(2.0**-3)


def test_equal_arms_are_not_told_apart() -> None:
    same = paired_difference([0.1, 0.7, 0.2], [0.1, 0.7, 0.2], ["a", "b", "c"])
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(DataError, match="paired"):
        paired_difference([1.0], [1.0, 2.0], ["a"])
    with pytest.raises(DataError, match="paired"):
        paired_difference([], [], [])


def test_holm_is_the_step_down_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.uniform(size=6)
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2, 0.6):
            rejected, left = set(), sorted(range(6), key=lambda i: p[i])
            while left and p[left[0]] <= level / len(left):
                rejected.add(left.pop(0))
            assert {i for i in range(6) if adjusted[i] <= level} == rejected
    assert np.isnan(holm([0.01, np.nan])[1]) and holm([0.01, np.nan])[0] == 0.01
    assert holm([]).shape == (0,)
