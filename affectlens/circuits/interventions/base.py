"""What an intervention is: a place, what becomes of its values, and where in the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint

Change = Callable[[Float[Tensor, "batch pos width"]], Float[Tensor, "batch pos width"]]
"""New values of a place, given those of the pass in float32."""


@dataclass(frozen=True)
class Kind:
    """A row of `INTERVENTIONS`.

    Attributes:
        name: What users write.
        help: One line for lists.
        make: Makes the change from what this kind needs.
    """

    name: str
    help: str
    make: Callable[..., Change]


@dataclass(frozen=True, eq=False)
class Intervention:
    """One change at one place of one block.

    Attributes:
        at: The place.
        change: What becomes of its values.
        where: Which values are changed, broadcast to ``[batch, pos, width]``; None: all. A mask
            whose first axis is the batch gives every row an intervention of its own, so many
            conditions share a pass.
    """

    at: WritePoint
    change: Change
    where: Bool[Tensor, "#batch #pos #width"] | None = None

    def __post_init__(self) -> None:
        if self.where is not None and not (self.where.dtype == torch.bool and self.where.ndim == 3):
            raise DataError(
                "Where an intervention changes values is a mask of truth values "
                f"[batch, pos, width], not {self.where.dtype} {list(self.where.shape)}."
            )
        if self.where is not None and not bool(self.where.any()):
            raise DataError(
                f"The intervention at {self.at.hook_name} changes no value at all; "
                "choose at least one unit, row and position."
            )

    def __call__(self, value: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos width"]:
        """The values after it; those it does not change are bit for bit the same.

        Raises:
            DataError: If the mask, or what takes the values' place, is of another shape.
        """
        if self.where is not None:
            fits(self.at.hook_name, "mask", self.where, value)
        try:
            new = self.change(value.float())
        except RuntimeError as error:  # shapes that cannot be broadcast
            raise DataError(
                f"The intervention at {self.at.hook_name} does not fit: {error}."
            ) from None
        if new.shape != value.shape:
            raise DataError(
                f"The intervention at {self.at.hook_name} gives {list(new.shape)} for "
                f"{list(value.shape)}; its values need one row or as many as the batch has, one "
                "position or as many as the text has, and the width of the place."
            )
        new = new.to(value.dtype)
        return new if self.where is None else torch.where(self.where.to(value.device), new, value)


def fits(name: str, what: str, given: Tensor, value: Tensor) -> None:
    """Refuse what cannot be broadcast to the values of a pass.

    Raises:
        DataError: If it cannot.
    """
    pairs = zip(given.shape, value.shape, strict=True)
    if any(have not in (1, needed) for have, needed in pairs):
        raise DataError(
            f"The {what} of the intervention at {name} is {list(given.shape)}, the pass has "
            f"{list(value.shape)}; every axis must be 1 or equal. Texts must run whole, without a "
            "cache, where positions differ."
        )


def given_values(name: str, values: Tensor) -> Float[Tensor, "#batch #pos #width"]:
    """Values as ``[batch, pos, width]`` in float32; a vector is the same for all.

    Raises:
        DataError: If they hold NaN or infinity, or have more axes.
    """
    if not 1 <= values.ndim <= 3:
        raise DataError(f"The values of {name} need at most three axes, not {values.ndim}.")
    if not bool(values.isfinite().all()):
        raise DataError(f"The values of {name} hold NaN or infinity; measure them again.")
    return values.float()[(None,) * (3 - values.ndim)]
