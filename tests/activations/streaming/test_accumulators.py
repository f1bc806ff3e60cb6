"""The sums on plain tensors, against numpy in float64 over all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from affectlens.activations.streaming.accumulators import (
    ClassMoments,
    FirstBad,
    Members,
    WeightedSums,
    zeros,
)
from affectlens.activations.streaming.sum_sinks import RowSink
from affectlens.activations.streaming.top_rows import TopRows
from affectlens.core.errors import DataError
from affectlens.core.places import Site

CPU = torch.device("cpu")


def _cut(n: int, sizes: list[int]) -> list[slice]:
    ends = np.cumsum(sizes)
    assert ends[-1] == n
    return [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]


def _moments(
    x: torch.Tensor, labels: np.ndarray, k: int, sizes: list[int], scatter: str = "none"
) -> ClassMoments:
    sums = ClassMoments(k, x.shape[1], CPU, scatter)
    for part in _cut(len(x), sizes):
        values = x[part].double()
        sums.add(values, values.square().mean(1), Members.of(labels[part], CPU))
    return sums


def _data(mean: float, std: float, n: int = 997, d: int = 7) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=n, p=[0.6, 0.3, 0.09, 0.01])
    x = rng.normal(mean, std, (n, d)) @ (np.eye(d) + 0.3 * np.eye(d, k=1))
    return torch.from_numpy(x + std * labels[:, None]).float(), labels


SIZES = ([997], [1] * 997, [500, 1, 400, 96], [3] * 332 + [1])


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1e4, 1e-2), (-3e6, 1.0), (1e-6, 1e-8)])
def test_moments_of_classes_however_the_rows_are_cut(
    mean: float, std: float, sizes: list[int]
) -> None:
    x, labels = _data(mean, std)
    sums = _moments(x, labels, 5, sizes, "class")
    exact = x.numpy().astype(np.float64)
    scatter = sums.scatter
    assert scatter is not None
    for c in range(4):
        rows = exact[labels == c]
        assert int(sums.count[c]) == len(rows)
        np.testing.assert_allclose(sums.mean[c], rows.mean(0), rtol=1e-13)
        np.testing.assert_allclose(sums.deviation[c] / len(rows), rows.var(0), rtol=1e-9)
        np.testing.assert_allclose(
            sums.row_rms[c] / len(rows), np.sqrt((rows**2).mean(1)).mean(), rtol=1e-12
        )
        expected = np.cov(rows.T, ddof=0)
        np.testing.assert_allclose(
            scatter[c] / len(rows), expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max()
        )
    assert int(sums.count[4]) == 0 and not bool(sums.mean[4].any())


@pytest.mark.parametrize("sizes", SIZES)
def test_scatter_within_classes_is_the_sum_of_theirs(sizes: list[int]) -> None:
    x, labels = _data(1e4, 1e-2)
    within, each = (_moments(x, labels, 4, sizes, what) for what in ("within", "class"))
    assert within.scatter is not None and each.scatter is not None
    torch.testing.assert_close(within.scatter, each.scatter.sum(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        within.scatter.diagonal(), within.deviation.sum(0), rtol=1e-9, atol=0
    )


def test_naive_sums_of_squares_would_fail_here() -> None:
    """The data are nasty enough: float32, or float64 without merging, loses the variance."""
    x, _ = _data(1e4, 1e-2)
    true = x.double().var(0, unbiased=False)
    naive = x.square().mean(0) - x.mean(0).square()
    assert float((naive / true - 1).abs().max()) > 1
    x, _ = _data(-3e6, 1.0)
    x = torch.cat([x.double() * 1e3 + i for i in range(2)])
    true = x.var(0, unbiased=False)
    naive = x.square().mean(0) - x.mean(0).square()
    assert float((naive / true - 1).abs().max()) > 1e-6
    sums = _moments(x, np.zeros(len(x), dtype=int), 1, [2] * 997)
    torch.testing.assert_close(sums.deviation[0] / len(x), true, rtol=1e-9, atol=0)


def test_a_class_far_from_the_others_keeps_its_own_variance() -> None:
    """One common shift would not do: a class may lie a million deviations from the first rows."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1e-2, (400, 3))
    labels = np.arange(400) % 2
    x[labels == 1] += 1e4
    values = torch.from_numpy(x).float()
    sums = _moments(values, labels, 2, [1] + [19] * 21)
    for c in range(2):
        expected = values.numpy().astype(np.float64)[labels == c].var(0)
        np.testing.assert_allclose(sums.deviation[c] / 200, expected, rtol=1e-9)


def test_constant_rows_have_no_variance_at_all() -> None:
    x = torch.full((50, 3), 12345.678)
    sums = _moments(x, np.zeros(50, dtype=int), 1, [7] * 7 + [1], "within")
    assert sums.scatter is not None
    assert float(sums.deviation.abs().max()) < 1e-18 and float(sums.scatter.abs().max()) < 1e-18


def test_weighted_sums_are_the_product() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(60, 5, generator=generator) + 100,
        torch.randn(9, 60, generator=generator),
    )
    sums = WeightedSums(9, 5, CPU)
    for part in _cut(60, [1, 29, 30]):
        values = x[part].double()
        sums.add(values, values.square().mean(1), weight[:, part].double())
    torch.testing.assert_close(sums.total, weight.double() @ x.double(), rtol=1e-12, atol=1e-10)
    assert float(sums.square) == pytest.approx(float(x.double().square().sum()), rel=1e-12)


def test_the_first_bad_row_is_found_in_whatever_order_they_come() -> None:
    bad = FirstBad(CPU)
    squares = torch.ones(10, dtype=torch.float64)
    bad.add(squares, 0)
    assert bad.row() is None
    squares[7] = float("nan")
    bad.add(squares, 20)
    squares[3] = float("inf")
    bad.add(squares, 10)
    bad.add(squares, 30)
    assert bad.row() == 13


def _top(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """By value, then by row number."""
    rows = np.stack([np.lexsort((np.arange(len(x)), -x[:, j])) for j in range(x.shape[1])], 1)[:k]
    return np.take_along_axis(x, rows, 0), rows


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_top_rows_with_ties_in_any_order(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 3, (300, 6)).astype(np.float32)  # almost everything is a tie
    x[:, 0] = rng.normal(size=300)
    x[:, 1] = -(2.0**-140)  # subnormal, all alike
    x[:, 2] = np.where(rng.random(300) < 0.5, 0.0, -0.0)  # the two zeros are one value
    x[:, 3] = rng.normal(size=300) * 1e38
    expected_values, expected_rows = _top(x, k)
    for _ in range(4):
        order = rng.permutation(300)
        top = TopRows(k, 6, CPU)
        for part in np.array_split(order, rng.integers(1, 60)):
            top.add(torch.from_numpy(x[part]), torch.from_numpy(part))
        values, rows = top.result()
        assert np.array_equal(rows.numpy(), expected_rows)
        assert np.array_equal(values.numpy(), expected_values)


def test_fewer_rows_than_places() -> None:
    top = TopRows(10, 2, CPU)
    top.add(torch.tensor([[1.0, -5.0], [3.0, -4.0]]), torch.tensor([2**32 - 1, 0]))
    values, rows = top.result()
    assert values.tolist() == [[3.0, -4.0], [1.0, -5.0]]
    assert rows.tolist() == [[0, 0], [2**32 - 1, 2**32 - 1]]


def test_no_room_is_one_sentence() -> None:
    with pytest.raises(DataError, match=r"no room for sums of .* MiB on cpu; ask for fewer"):
        zeros([1 << 40, 1 << 10], CPU)


def test_a_device_that_fills_up_is_one_sentence() -> None:
    class Full(RowSink):
        def take(self, *_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    sentence = r"cpu has no room left for sums at blocks\.2\.hook_resid_post; ask for fewer"
    with pytest.raises(DataError, match=sentence):
        Full({}).write(Site(2, "resid_post"), "last", 0, torch.ones(3, 2))


def test_memory_is_what_the_table_says() -> None:
    """Bytes per site in the docstring of `affectlens.activations.streaming.moments`."""
    w, c, k = 100, 7, 20

    def size(sums: object) -> int:
        return sum(v.nbytes for v in vars(sums).values() if isinstance(v, torch.Tensor))

    small = 16 * c  # counts and row RMS
    assert size(ClassMoments(c, w, CPU)) == 16 * c * w + small
    assert size(ClassMoments(c, w, CPU, "within")) == 16 * c * w + small + 8 * w * w
    assert size(ClassMoments(c, w, CPU, "class")) == 16 * c * w + small + 8 * c * w * w
    assert size(TopRows(k, w, CPU)) == 8 * k * w
    assert size(WeightedSums(k, w, CPU)) == 8 * k * w + 8
