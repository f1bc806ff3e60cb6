"""What a probe is: a map from activations to one score per class, label or target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from affectlens.geometry.linear_fit import LinearFit

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from affectlens.probes.estimators.moments import RowMoments

CLASSES, LABELS, NUMBERS = "classes", "labels", "numbers"
"""What rows may carry: one class each, any number of labels (0 or 1 each), or numbers."""


class Fitted(Protocol):
    """Fitted probes of every site × resample × penalty, in the units of the rows they were given.

    Those of kinds that read the tokens of a text (`ProbeKind.tokens`) also take ``texts``.
    """

    @property
    def converged(self) -> Bool[Tensor, "site resample penalty"]:
        """Whether the tolerance was reached before the last step."""
        ...

    @property
    def logits(self) -> Callable[..., Float[Tensor, "site resample penalty n class"]]:
        """Of rows ``[site, n, d]`` their scores under every probe of their site."""
        ...

    def parts(self) -> dict[str, Tensor]:
        """All that a file needs to hold, each ``[site, resample, penalty, ...]``."""
        ...


class Fit(Protocol):
    """Fits every site × resample × penalty at once."""

    def __call__(
        self,
        x: Float[Tensor, "site n d"],
        y: Int[Tensor, " n"] | Float[Tensor, "n target"],
        penalties: Sequence[float] | Float[Tensor, "site penalty"],
        *,
        n_classes: int,
        weight: Float[Tensor, "resample n"],
        tol: float,
    ) -> Fitted:
        """Fit standardised features; the result is in raw units, on the device of the rows.

        Args:
            x: Rows; sites share their labels.
            y: Class of each row, whole numbers; or, for kinds whose `ProbeKind.targets` say so,
                numbers in floating point, or labels (0 or 1 each).
            penalties: Inverse strengths of L2, scikit-learn's ``C``, the same for all sites or one
                row of them per site.
            n_classes: Number of classes, at least two; or of labels, or of targets.
            weight: Weight of each row per resample; rows of weight 0 play no part.
            tol: Largest relative error of the weights, where they are found step by step.

        Raises:
            DataError: If a resample lacks a class, or rows are not finite.
        """
        ...


def restore_linear(parts: Mapping[str, Tensor]) -> LinearFit:
    """Inverse of `LinearFit.parts`."""
    weights = parts["weights"]
    return LinearFit(weights, parts["bias"], torch.ones(weights.shape[:3], dtype=torch.bool))


@dataclass(frozen=True)
class ProbeKind:
    """A row of the table.

    Attributes:
        name: What users write.
        help: One line.
        fit: Fits it (`Fit`; of a kind that reads tokens see `estimators.attention`) and gives
            `Fitted`: of a linear kind a `LinearFit`.
        targets: What rows may carry, of `CLASSES`, `LABELS` and `NUMBERS`.
        link: What makes probabilities of scores of classes: ``"softmax"``, or ``"sigmoid"`` where
            every class was told from the rest by itself.
        tokens: Whether it reads all tokens of a text, where others read one row.
        linear: Whether scores are linear in the row, as `LinearFit` has it.
        from_moments: The same from sums over rows alone, ``(moments, penalties, classes)``; so it
            can be fitted while rows stream by. None if it needs every row.
        restore: Makes fitted probes of the parts that a file holds.
    """

    name: str
    help: str
    fit: Callable[..., Any]
    targets: tuple[str, ...] = (CLASSES,)
    link: str = "softmax"
    tokens: bool = False
    linear: bool = True
    from_moments: Callable[[RowMoments, Tensor, bool], Fitted] | None = None
    restore: Callable[[Mapping[str, Any]], Fitted] = restore_linear
