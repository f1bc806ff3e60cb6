"""Splits of a user's data keep groups whole, in the shares asked for."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.core import DataError
from affectlens.datasets import grouped_split
from affectlens.datasets.splits import grouped_roles

KEYS = [f"g{i // 3}" for i in range(300)]  # 100 groups of three


def test_shares_count_groups() -> None:
    splits = grouped_split(KEYS, fractions={"fit": 6, "tune": 1, "test": 3})
    counts = {name: splits.count(name) // 3 for name in ("fit", "tune", "test")}
    assert counts == {"fit": 60, "tune": 10, "test": 30}


def test_shares_hold_within_every_stratum() -> None:
    strata = [f"theme{int(key[1:]) % 4}" for key in KEYS]
    splits = grouped_split(KEYS, fractions={"fit": 0.6, "test": 0.4}, strata=strata)
    for theme in set(strata):
        chosen = [s for s, t in zip(splits, strata, strict=True) if t == theme]
        assert chosen.count("test") == 30 and chosen.count("fit") == 45


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=60),
    st.integers(0, 5),
    st.dictionaries(st.sampled_from(["fit", "tune", "test"]), st.floats(0.01, 1), min_size=1),
)
def test_groups_stay_whole_and_largest_remainder(
    keys: list[int], seed: int, fractions: dict[str, float]
) -> None:
    splits = grouped_split(keys, fractions=fractions, seed=seed)
    of_key = dict(zip(keys, splits, strict=True))
    assert splits == [of_key[key] for key in keys]
    n, whole = len(of_key), sum(fractions.values())
    for name, share in fractions.items():
        assert abs(list(of_key.values()).count(name) - n * share / whole) < 1
    order = sorted(range(len(keys)), key=lambda i: (keys[i], -i))
    again = grouped_split([keys[i] for i in order], fractions=fractions, seed=seed)
    assert [splits[i] for i in order] == again


def test_seed_matters_and_repeats() -> None:
    assert grouped_split(KEYS, seed=1) == grouped_split(KEYS, seed=1)
    assert grouped_split(KEYS, seed=1) != grouped_split(KEYS, seed=2)


@pytest.mark.parametrize("fractions", [{}, {"fit": 0.0}, {"fit": 1.0, "test": -0.5}])
def test_bad_fractions(fractions: dict[str, float]) -> None:
    with pytest.raises(DataError, match="fractions"):
        grouped_split(KEYS, fractions=fractions)


def test_group_in_two_strata_is_refused() -> None:
    with pytest.raises(DataError, match="'a' lies in two themes"):
        grouped_split(["a", "a"], strata=["x", "y"])


def test_roles_alternate_over_fitting_groups() -> None:
    keys = ["a", "a", "t", "b", "c", "c", "b"]
    splits = ["fit", "fit", "test", "fit", "fit", "fit", "fit"]
    roles = grouped_roles(keys, splits)
    assert roles == ["direction", "direction", "test", "judge", "direction", "direction", "judge"]
    of_key: defaultdict[str, set[str]] = defaultdict(set)
    for key, role in zip(KEYS, grouped_roles(KEYS, grouped_split(KEYS)), strict=True):
        of_key[key].add(role)
    assert all(len(roles) == 1 for roles in of_key.values())
