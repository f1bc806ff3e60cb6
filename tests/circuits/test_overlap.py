from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from affectlens.circuits.overlap import Overlap, chance_intersection, hypergeometric, overlap
from affectlens.core import DataError


@pytest.mark.parametrize(("size", "a", "b"), [(24, 6, 6), (24, 20, 11), (9, 9, 4), (1536, 20, 28)])
def test_hypergeometric_equals_scipy(size: int, a: int, b: int) -> None:
    k = np.arange(min(a, b) + 1)
    np.testing.assert_allclose(
        hypergeometric(size, a, b), stats.hypergeom(size, a, b).pmf(k), atol=1e-12
    )


def test_sublayers_convolve() -> None:
    total = chance_intersection([2, 0, 3], [2, 5, 1], [5, 5, 5])
    np.testing.assert_allclose(total.sum(), 1.0)
    # Means of independent hypergeometrics add up: 2*2/5 + 0 + 3*1/5.
    np.testing.assert_allclose(total @ np.arange(len(total)), 0.8 + 0.6)


def test_null_equals_simulation() -> None:
    counts, size, rng = {"a": [1, 4, 2], "b": [3, 3, 0]}, 6, np.random.default_rng(0)

    def draw(name: str) -> set[tuple[int, int]]:
        return {
            (layer, int(i))
            for layer, n in enumerate(counts[name])
            for i in rng.choice(size, n, replace=False)
        }

    first, second = draw("a"), draw("b")
    found = overlap({"a": first, "b": second}, sizes=[size] * 3)
    samples = np.array(
        [len(x & y) / len(x | y) for x, y in ((draw("a"), draw("b")) for _ in range(20_000))]
    )
    assert found.jaccard[0, 1] == len(first & second) / len(first | second)
    assert abs(found.expected[0, 1] - samples.mean()) < 4e-3
    assert abs(found.deviation[0, 1] - samples.std()) < 4e-3
    tail = (samples >= found.jaccard[0, 1] - 1e-12).mean()
    assert abs(found.p_value[0, 1] - tail) < 0.02


def test_chance_level_is_high_for_heads_and_nil_for_neurons() -> None:
    """The published sizes: raw Jaccard compares .45 with .06 although chance differs as much."""
    heads = {e: [(layer, i) for layer in range(28) for i in range(6)] for e in "ab"}
    neurons = {e: [(layer, i) for layer in range(28) for i in range(14)] for e in "ab"}
    of_heads = overlap(heads, sizes=[24] * 28).summary()
    of_neurons = overlap(neurons, sizes=[8192] * 28).summary()
    assert of_heads["expected"] == pytest.approx(0.143, abs=0.01)
    assert of_neurons["expected"] < 0.002
    assert of_heads["ratio"] == pytest.approx(7, rel=0.05)


def test_round_trip_and_empty() -> None:
    found = overlap({"a": [(0, 1)], "b": []}, sizes=[3])
    assert found.jaccard[0, 1] == 0
    assert found.expected[0, 1] == 0
    again = Overlap.from_dict(found.to_dict())
    np.testing.assert_array_equal(again.p_value, found.p_value)
    assert again.emotions == ("a", "b")


def test_units_that_do_not_exist() -> None:
    with pytest.raises(DataError, match="circuit of a"):
        overlap({"a": [(3, 0)]}, sizes=[4] * 3)
    with pytest.raises(DataError, match="draw"):
        hypergeometric(3, 4, 1)
