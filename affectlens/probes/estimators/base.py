"""What a probe is: a linear map from activations to one score per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from affectlens.geometry.linear_fit import LinearFit


class Fit(Protocol):
    """Fits every site × resample × penalty at once."""

    def __call__(
        self,
        x: Float[Tensor, "site n d"],
        y: Int[Tensor, " n"],
        penalties: Sequence[float] | Float[Tensor, "site penalty"],
        *,
        n_classes: int,
        weight: Float[Tensor, "resample n"],
        tol: float,
    ) -> LinearFit:
        """Fit standardised features; the result is in raw units.

        Args:
            x: Rows; sites share their labels.
            y: Class of each row.
            penalties: Inverse strengths of L2, scikit-learn's ``C``, the same for all sites or one
                row of them per site.
            n_classes: Number of classes, at least two.
            weight: Weight of each row per resample; rows of weight 0 play no part.
            tol: Largest relative error of the weights, where they are found step by step.

        Raises:
            DataError: If a resample lacks a class, or rows are not finite.
        """
        ...


@dataclass(frozen=True)
class ProbeKind:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        fit: Fits it.
    """

    name: str
    help: str
    fit: Fit
