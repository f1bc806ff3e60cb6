"""Values plus a vector: enhancement, and what steering does."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Change, Kind, given_values


def add(vector: Float[Tensor, "#batch #pos #width"]) -> Change:
    """``x + v``.

    Args:
        vector: Broadcast to ``[batch, pos, width]``, in units of the place.

    Raises:
        DataError: If it holds NaN.
    """
    kept = given_values("an addition", vector)
    return lambda value: value + kept.to(value.device)


ADD = Kind("add", "a vector added to them", add)
