from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.circuits.allocation import (
    Budget,
    allocate,
    share_out,
    top_k_allocation,
    uniform_allocation,
)
from affectlens.circuits.units import choose, even_sizes, there_only
from affectlens.core import DataError

weights = st.lists(st.floats(-10, 10, allow_nan=False, width=32), min_size=1, max_size=20)


@settings(max_examples=300, deadline=None)
@given(
    weights=weights,
    size=st.integers(1, 50),
    floor=st.integers(0, 6),
    cap=st.integers(0, 60),
    share=st.floats(0, 1),
)
def test_share_out_properties(
    weights: list[float], size: int, floor: int, cap: int, share: float
) -> None:
    n = len(weights)
    total = int(share * n * size)
    counts = share_out(weights, total, sizes=[size] * n, floor=floor, cap=cap)
    assert sum(counts) == total
    assert counts == share_out(list(weights), total, sizes=[size] * n, floor=floor, cap=cap)
    low = min(floor, size, total // n)
    assert min(counts) >= low
    assert max(counts) <= size
    # The cap holds wherever the total can be placed under it.
    if total <= n * min(cap, size) and cap >= low:
        assert max(counts) <= cap
    # More influence never means fewer units, beyond the last unit of rounding.
    for i in range(n):
        for j in range(n):
            if max(weights[i], 0) > max(weights[j], 0):
                assert counts[i] >= counts[j] - 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 40),
    heads=st.integers(1, 40),
    d_mlp=st.integers(1, 200),
    per=st.floats(0, 30),
)
def test_allocate_properties(seed: int, layers: int, heads: int, d_mlp: int, per: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    profile = torch.randn(2, layers, 2, generator=generator)
    budget = Budget(per_sublayer=per)
    counts = allocate(profile, budget, even_sizes(layers, heads, d_mlp))
    assert counts.dtype == torch.long
    wanted = budget.split(even_sizes(layers, heads, d_mlp))
    assert counts.sum(1).tolist() == [list(wanted)] * 2
    assert int(counts[..., 0].max()) <= heads
    assert int(counts[..., 1].max()) <= d_mlp


def test_published_setting() -> None:
    """28 layers: 560 units, 392 neurons and 168 heads, floors 4 and 2 where influence is nil."""
    budget = Budget()
    assert budget.split(even_sizes(28, 24, 8192)) == (168, 392)
    profile = torch.zeros(1, 28, 2)
    profile[:, 10:] = torch.arange(18.0)[None, :, None] + 1
    profile[:, 3] = -5.0
    counts = allocate(profile, budget, even_sizes(28, 24, 8192))[0]
    assert counts[:10, 0].tolist() == [2] * 10
    assert counts[:10, 1].tolist() == [4] * 10
    # By hand: 392 - 112 = 280 shared in proportion to 1..18 (sum 171); the last layer gets 18/171.
    assert int(counts[27, 1]) == 4 + round(280 * 18 / 171)


def test_largest_remainder_by_hand() -> None:
    # 10 units over 1:1:1 -> quotas 3.33; the one unit left goes to the first of equals.
    assert share_out([1, 1, 1], 10, sizes=[99] * 3, floor=0, cap=99) == [4, 3, 3]
    # quotas 6.67, 3.33 -> the largest remainder wins.
    assert share_out([2, 1], 10, sizes=[99] * 2, floor=0, cap=99) == [7, 3]


def test_overflow_is_back_filled_in_proportion() -> None:
    # The first may hold 4; its other units go to the second and third, 2 to 1.
    assert share_out([100, 2, 1], 10, sizes=[50] * 3, floor=0, cap=4) == [4, 4, 2]
    # Sublayers without influence are filled when nothing else has room.
    assert share_out([5, 0, -3], 9, sizes=[3] * 3, floor=0, cap=99) == [3, 3, 3]


def test_no_influence_means_an_even_spread() -> None:
    assert share_out([-1, -2, -3, -4], 8, sizes=[9] * 4, floor=1, cap=9) == [2, 2, 2, 2]


def test_floors_shrink_where_the_budget_is_small() -> None:
    assert share_out([1, 2, 3], 5, sizes=[9] * 3, floor=4, cap=9) == [1, 2, 2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="NaN"):
        allocate(torch.full((1, 3, 2), bad), Budget(), even_sizes(3, 4, 8))


def test_more_units_than_exist_are_refused_and_the_share_keeps_below() -> None:
    with pytest.raises(DataError, match="Cannot place"):
        share_out([1.0], 10, sizes=[9] * 1, floor=0, cap=9)
    assert Budget(total=10**6, max_share=0.5).split(even_sizes(3, 4, 64)) == (6, 96)


@pytest.mark.parametrize(
    "field", [{"total": -1}, {"neuron_share": 1.2}, {"cap": -0.1}, {"floor_heads": -1}]
)
def test_budget_is_checked(field: dict[str, float]) -> None:
    with pytest.raises(DataError, match=next(iter(field))):
        Budget(**field)  # pyright: ignore[reportArgumentType]


def test_uniform_and_top_k_controls() -> None:
    budget = Budget(total=20)
    even = uniform_allocation(2, budget, even_sizes(3, 4, 64))
    assert even.sum(1).tolist() == [[6, 14], [6, 14]]
    assert int(even[..., 1].max() - even[..., 1].min()) <= 1
    neurons, heads = torch.zeros(2, 3, 64), torch.zeros(2, 3, 4)
    neurons[:, 1, :14] = 1.0
    heads[0, 0], heads[0, 2, 1:3] = 1.0, 1.0
    heads[1, 1], heads[1, 0, 0], heads[1, 2, 0] = 1.0, 1.0, 1.0
    counts = top_k_allocation(neurons, heads, budget, even_sizes(3, 4, 64))
    assert counts[:, :, 1].tolist() == [[0, 14, 0], [0, 14, 0]]
    assert counts[:, :, 0].tolist() == [[4, 0, 2], [1, 4, 1]]


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=10).filter(any),
    seed=st.integers(0, 10**6),
    floor=st.integers(0, 4),
    cap=st.integers(0, 12),
    share=st.floats(0, 1),
)
def test_sublayers_of_unlike_size(
    sizes: list[int], seed: int, floor: int, cap: int, share: float
) -> None:
    total = int(share * sum(sizes))
    weights = torch.randn(len(sizes), generator=torch.Generator().manual_seed(seed)).tolist()
    counts = share_out(weights, total, sizes=sizes, floor=floor, cap=cap)
    assert sum(counts) == total
    assert all(0 <= n <= size for n, size in zip(counts, sizes, strict=True))
    low = min(floor, total // sum(size > 0 for size in sizes))
    assert all(n >= min(low, size) for n, size in zip(counts, sizes, strict=True))
    if total <= sum(min(cap, size) for size in sizes) and cap >= low:
        assert max(counts) <= cap


def test_layers_without_units_give_none_and_do_not_count() -> None:
    """Heads in one layer of three, neurons in two, one of them of four experts."""
    sizes = torch.tensor([[0, 64], [4, 0], [0, 256]])
    budget = Budget(per_sublayer=4.0)
    assert budget.split(sizes) == (2, 8)  # 12 units, of which heads are capped at half of four
    counts = allocate(torch.ones(1, 3, 2), budget, sizes)[0]
    assert counts.tolist() == [[0, 4], [2, 0], [0, 4]]
    scores = torch.full((1, 3, 256), -1.0)  # what fills up smaller layers is 0 and would win
    scores[0, 0, 64:], scores[0, 1] = 0.0, 0.0
    chosen = choose(there_only(scores, sizes[:, 1]), counts[None, :, 1], ("anger",))["anger"]
    assert all(unit.index < sizes[unit.layer, 1] for unit in chosen)
    heads = torch.zeros(1, 3, 4)
    naive = top_k_allocation(scores, heads, budget, sizes)
    assert naive[0, :, 0].tolist() == [0, 2, 0]
    assert naive[0, 1, 1] == 0
