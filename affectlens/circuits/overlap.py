"""Overlap of emotions' circuits, always beside what chance alone would give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core.display import Displayed
from affectlens.core.errors import DataError

_Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, repr=False)
class Overlap(Displayed):
    """Jaccard indices between emotions, with the allocation-matched chance level.

    Under chance every emotion draws its units at random *within each sublayer*, as many as it has
    there; the intersections are then hypergeometric and independent over sublayers, so mean,
    spread and tail below are exact, not sampled.

    Attributes:
        emotions: Order of both axes.
        jaccard: Observed ``|A ∩ B| / |A ∪ B|``.
        expected: Its mean under chance.
        deviation: Its standard deviation under chance.
        p_value: Chance of an intersection at least as large (one-sided).
    """

    emotions: tuple[str, ...]
    jaccard: Float[_Array, "emotion emotion"]
    expected: Float[_Array, "emotion emotion"]
    deviation: Float[_Array, "emotion emotion"]
    p_value: Float[_Array, "emotion emotion"]

    def brief(self) -> dict[str, object]:
        """Emotions, and the means over their pairs."""
        means = {name: f"{value:.3f}" for name, value in self.summary().items()}
        return {"emotions": len(self.emotions), **means}

    def table_rows(self) -> Sequence[Mapping[str, object]]:
        """A row per pair of unlike emotions."""
        names = ("jaccard", "expected", "deviation", "p_value")
        return [
            {"first": self.emotions[i], "second": self.emotions[j]}
            | {name: float(getattr(self, name)[i, j]) for name in names}
            for i, j in zip(*np.triu_indices(len(self.emotions), 1), strict=True)
        ]

    def summary(self) -> dict[str, float]:
        """Means over the pairs of unlike emotions, and observed over expected."""
        upper = np.triu_indices(len(self.emotions), 1)
        if not len(upper[0]):
            return {"jaccard": 1.0, "expected": 1.0, "ratio": 1.0}
        seen, chance = float(self.jaccard[upper].mean()), float(self.expected[upper].mean())
        ratio = seen / chance if chance > 0 else math.nan
        return {"jaccard": seen, "expected": chance, "ratio": ratio}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        names = ("jaccard", "expected", "deviation", "p_value")
        return {"emotions": list(self.emotions)} | {n: getattr(self, n).tolist() for n in names}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Overlap:
        """Inverse of `to_dict`."""
        names = ("jaccard", "expected", "deviation", "p_value")
        arrays = {n: np.asarray(plain[n], dtype=np.float64) for n in names}
        return cls(tuple(plain["emotions"]), **arrays)


def jaccard(first: AbstractSet[tuple[int, int]], second: AbstractSet[tuple[int, int]]) -> float:
    """Units in both sets, of those in either; NaN if neither has any."""
    either = first | second
    return len(first & second) / len(either) if either else np.nan


def hypergeometric(size: int, first: int, second: int) -> Float[_Array, " k"]:
    """P(``k`` units in common) of two random subsets, for k = 0 … min(first, second).

    Raises:
        DataError: If a subset is larger than the set.
    """
    if not (0 <= first <= size and 0 <= second <= size):
        raise DataError(f"Cannot draw {first} and {second} units from {size}.")
    from scipy.stats import hypergeom

    return hypergeom.pmf(np.arange(min(first, second) + 1), size, first, second)


def chance_intersection(
    first: Sequence[int], second: Sequence[int], sizes: Sequence[int]
) -> Float[_Array, " k"]:
    """Distribution of the whole intersection: sublayers are independent, so they convolve.

    Args:
        first: Units of one emotion per sublayer.
        second: Units of the other per sublayer.
        sizes: Units that exist per sublayer.
    """
    total = np.ones(1)
    for a, b, size in zip(first, second, sizes, strict=True):
        if a and b:
            total = np.convolve(total, hypergeometric(size, a, b))
    return total


def overlap(units: Mapping[str, Iterable[tuple[int, int]]], *, sizes: Sequence[int]) -> Overlap:
    """Compare unit sets of one kind.

    Args:
        units: Per emotion its units as (layer, index).
        sizes: Units that exist in each layer.

    Raises:
        DataError: If a unit does not exist.

    Source: arXiv 2510.11328 §6 gives raw Jaccard (.056 neurons, .454 heads); with the same
        allocation chance alone gives about .001 and .21, hence this null.
    """
    emotions = tuple(units)
    sets = [set(units[e]) for e in emotions]
    counts: list[list[int]] = []
    n_layers = len(sizes)
    for name, chosen in zip(emotions, sets, strict=True):
        if any(
            not (0 <= layer < n_layers and 0 <= index < sizes[layer]) for layer, index in chosen
        ):
            raise DataError(f"The circuit of {name} has a unit that the model does not have.")
        per_layer = [0] * n_layers
        for layer, _ in chosen:
            per_layer[layer] += 1
        counts.append(per_layer)
    n = len(emotions)
    seen, mean, deviation, tail = np.eye(n), np.eye(n), np.zeros((n, n)), np.ones((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            together = len(sets[i]) + len(sets[j])
            chance = chance_intersection(counts[i], counts[j], sizes)
            k = np.arange(len(chance))
            index = k / np.maximum(together - k, 1)
            common = len(sets[i] & sets[j])
            average = float(chance @ index)
            seen[i, j] = seen[j, i] = common / max(together - common, 1)
            mean[i, j] = mean[j, i] = average
            spread = math.sqrt(max(float(chance @ (index - average) ** 2), 0.0))
            deviation[i, j] = deviation[j, i] = spread
            tail[i, j] = tail[j, i] = min(float(chance[common:].sum()), 1.0)
    return Overlap(emotions, seen, mean, deviation, tail)
