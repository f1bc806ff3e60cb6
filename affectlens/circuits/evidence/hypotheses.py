"""Hypothesis tests of circuits: is it the model, is nothing of it elsewhere, is all of it needed?

Scenarios are the units of all tests. What is idealised fails on large samples, so each test has its
null the way in which a circuit would have to be caught.

Source: Shi et al., "Hypothesis testing the circuit hypothesis in LLMs", arXiv 2410.13032.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from affectlens.core.errors import DataError
from affectlens.core.statistics import holm

if TYPE_CHECKING:
    from affectlens.circuits.evidence.faithfulness_curve import FaithfulnessCurve

Floats = np.ndarray[Any, np.dtype[np.float64]]
ALPHA = 0.05
TESTS: tuple[str, ...] = ("equivalence", "independence", "sufficiency")
FEWEST = 4
"""Scenarios that a test of independence needs."""


@dataclass(frozen=True)
class Hypotheses:
    """p-values of one emotion's circuit, by Holm over the emotions; NaN: too few texts to test.

    Attributes:
        emotion: Whose.
        equivalence: That the circuit alone and the model outdo each other about equally often;
            small: they do not, the circuit is not the model.
        independence: That what is left of the margin without the circuit tells nothing of the
            model's margin; small: part of the mechanism is elsewhere.
        sufficiency: That random circuits of the same shape come as near to the model; small: the
            circuit is nearer than chance.
    """

    emotion: str
    equivalence: float
    independence: float
    sufficiency: float

    def words(self) -> dict[str, str]:
        """What is said of each, at level :data:`ALPHA`."""

        def said(p: float, small: str) -> str:
            return "untested" if math.isnan(p) else small if p < ALPHA else f"not {small}"

        return {
            "equivalence": said(self.equivalence, "rejected"),
            "independence": said(self.independence, "rejected"),
            "sufficiency": said(self.sufficiency, "shown"),
        }

    def table_row(self) -> dict[str, object]:
        """p-values and words, by name."""
        row: dict[str, object] = {"emotion": self.emotion}
        for name, word in self.words().items():
            row |= {f"{name}_p": getattr(self, name), name: word}
        return row


def hypotheses(
    curve: FaithfulnessCurve, *, tolerance: float = 0.1, draws: int = 2000, seed: int = 0
) -> list[Hypotheses]:
    """All tests, from margins that were measured for faithfulness.

    Args:
        curve: Of `affectlens.circuits.evidence.faithfulness`.
        tolerance: See `equivalence`.
        draws: Of permutations.
        seed: Likewise.
    """
    found = list[list[float]]()
    for e in range(len(curve.emotions)):
        kept = ~np.isnan(curve.whole[e])
        names = [s for s, keep in zip(curve.scenarios, kept, strict=True) if keep]
        whole, alone, without = (
            by_scenario(part[e, kept], names)
            for part in (curve.whole, curve.circuit, curve.without)
        )
        random = np.stack([by_scenario(row[kept], names) for row in curve.random_circuits[e]])
        found.append(
            [
                equivalence(alone - whole, tolerance),
                independence(without, whole, draws=draws, seed=seed)
                if len(whole) >= FEWEST
                else math.nan,
                nearer(alone, random, whole, draws=draws, seed=seed),
            ]
        )
    adjusted = np.stack([holm(column) for column in np.array(found).T], axis=1)
    return [
        Hypotheses(emotion, *map(float, row))
        for emotion, row in zip(curve.emotions, adjusted, strict=True)
    ]


def by_scenario(values: Float[Floats, " text"], scenarios: Sequence[str]) -> Float[Floats, " n"]:
    """Means over the texts of each scenario, in the order of their names."""
    names, index = np.unique(np.asarray(scenarios), return_inverse=True)
    return np.bincount(index, values, len(names)) / np.bincount(index, minlength=len(names))


def equivalence(differences: Float[Floats, " n"], tolerance: float = 0.1) -> float:
    """p of the null that one outdoes the other in a share of cases within tolerance of a half.

    An exact binomial test, both tails, at the edge of the null that is hardest to reject.

    Args:
        differences: One minus the other; zeros count half.
        tolerance: From a half.

    Raises:
        DataError: If there is no difference, or the tolerance is not in [0, .5).
    """
    from scipy.stats import binom

    n = len(differences)
    if not n or not 0 <= tolerance < 0.5:
        raise DataError("Equivalence needs differences, and a tolerance from 0 up to below 0.5.")
    wins = (differences > 0).sum() + (differences == 0).sum() / 2
    far = np.ceil(max(wins, n - wins))
    edge = 0.5 + tolerance
    return float(min(1.0, binom.sf(far - 1, n, edge) + binom.cdf(n - far, n, edge)))


def independence(
    first: Float[Floats, " n"], second: Float[Floats, " n"], *, draws: int = 2000, seed: int = 0
) -> float:
    """p of the null that two series are independent: HSIC, by permutations.

    Gaussian kernels as wide as the median distance. Gretton et al. (2007).

    Raises:
        DataError: If there are fewer than four pairs, or lengths differ.
    """
    if len(first) != len(second) or len(first) < FEWEST:
        raise DataError("A test of independence needs four pairs of values or more.")
    k, m = (_kernel(np.asarray(x, dtype=np.float64)) for x in (first, second))
    n = len(k)
    centring = np.eye(n) - 1 / n
    centred = centring @ k @ centring
    seen = float((centred * m).sum())
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(n) for _ in range(draws))
    above = sum(float((centred * m[np.ix_(o, o)]).sum()) >= seen - 1e-12 for o in orders)
    return (1 + above) / (1 + draws)


def nearer(
    circuit: Float[Floats, " n"],
    random: Float[Floats, "draw n"],
    model: Float[Floats, " n"],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """p of the null that a circuit is no nearer to the model than random ones, one-sided.

    Signs of the differences of distances are flipped at random, scenario by scenario.
    """
    distance = np.abs(random - model).mean(0) - np.abs(circuit - model)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(distance)))
    above = ((signs * distance).mean(1) >= distance.mean() - 1e-12).sum()
    return float((1 + above) / (1 + draws))


def _kernel(values: Float[Floats, " n"]) -> Float[Floats, "n n"]:
    distance = np.abs(values[:, None] - values[None])
    width = float(np.median(distance[np.triu_indices(len(values), 1)])) or 1.0
    return np.exp(-((distance / width) ** 2) / 2)
