"""What can be set of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from affectlens.core.errors import DataError

PENALTIES = (0.001, 0.01, 0.1, 1.0)


def each_penalty(penalties: Sequence[float]) -> tuple[float, ...]:
    """Values of C, ascending, each once.

    Raises:
        DataError: If there is none, or one is no value of C.
    """
    tried = tuple(sorted({float(c) for c in penalties}))
    if not tried or not all(0 < c < float("inf") for c in tried):
        raise DataError("Penalties are values of C: give at least one, all above zero and finite.")
    return tried


@dataclass(frozen=True)
class SweepSettings:
    """How probes are fitted and scored.

    Attributes:
        probe: What is fitted, a name in `affectlens.probes.PROBES`.
        penalties: Values of scikit-learn's C, of standardised features; the one with the best
            cross-validated accuracy is taken, the strongest penalty among equals.
        folds: Folds of scenarios.
        draws: Bootstrap draws of scenarios for the interval.
        seed: Of folds and draws.
    """

    probe: str = "logistic"
    penalties: Sequence[float] = PENALTIES
    folds: int = 5
    draws: int = 1000
    seed: int = 0

    def tried(self) -> tuple[float, ...]:
        """The penalties, ascending, each once.

        Raises:
            DataError: If there is none, or one is no value of C.
        """
        return each_penalty(self.penalties)


class SweepOptions(TypedDict, total=False):
    """Keywords for `SweepSettings`, which says what each does."""

    probe: str
    penalties: Sequence[float]
    folds: int
    draws: int
    seed: int


NUMBER_DEFAULTS: SweepOptions = {"probe": "ridge", "penalties": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)}
"""What a sweep of numbers does unless told otherwise."""
