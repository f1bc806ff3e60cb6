"""What tells classes apart taken out, the mean left where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Change, Kind

if TYPE_CHECKING:
    from affectlens.geometry.leace import Eraser


def erase(eraser: Eraser) -> Change:
    """``x - L R (x - mean)``.

    Args:
        eraser: Of `affectlens.geometry.leace.fit_leace`, or of a subspace.
    """

    def change(value: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos width"]:
        return eraser(value)

    return change


ERASE = Kind("erase", "what tells classes apart taken out (LEACE, or a subspace)", erase)
