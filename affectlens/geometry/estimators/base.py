"""What estimators take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one site that have an emotion, in float32.

    Attributes:
        x: Activations.
        emotion: Index of the emotion of each row.
        group: Index of the group of each row.
        grid: The same activations by group and emotion; None if groups are incomplete.
        neutral: Activations of each group under the neutral tone, if all groups have it.
    """

    x: Float[Tensor, "n d"]
    emotion: Int[Tensor, " n"]
    group: Int[Tensor, " n"]
    grid: Float[Tensor, "group emotion d"] | None
    neutral: Float[Tensor, "group d"] | None

    @property
    def n_emotions(self) -> int:
        """How many emotions."""
        return int(self.emotion.max()) + 1

    def complete(self) -> Float[Tensor, "group emotion d"]:
        """The grid, where an estimator has made sure that there is one."""
        assert self.grid is not None
        return self.grid


Weights = Float[Tensor, "resample group"]
Displacements = Float[Tensor, "resample emotion d"]


@dataclass(frozen=True, eq=False)
class Sums:
    """Rows of one site added up: ``sum_i w[r, group i] x[i]`` over the rows of each tone.

    Attributes:
        total: The sums of the emotions, in float64 (contents cancel only between them).
        neutral: The sum of the neutral rows, if all groups have one.
        count: ``sum_i w[r, group i]`` over the rows of each emotion.
        groups: Sum of the weights of all groups.
    """

    total: Float[Tensor, "resample emotion d"]
    neutral: Float[Tensor, "resample d"] | None
    count: Float[Tensor, "resample emotion"]
    groups: Float[Tensor, " resample"]


@dataclass(frozen=True)
class Estimator:
    """A way to estimate directions.

    Attributes:
        name: What users write.
        help: One line.
        estimate: The function.
        grouped: Whether every group must have every emotion.
        neutral: Whether every group must have the neutral tone.
        from_sums: The same from sums alone; None if it needs every row.
    """

    name: str
    help: str
    estimate: Callable[[Rows, Weights], Displacements]
    grouped: bool
    neutral: bool
    from_sums: Callable[[Sums], Displacements] | None = None
