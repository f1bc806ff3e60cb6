"""Other values in the place of a run's own: means, values of another text, of another emotion.

What they are called in the literature depends on where the values are from: mean ablation (one
vector), mean by position (one vector a position), group mean (one vector a row), resample ablation
and activation patching (the values of another run, row by row and position by position).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Change, Kind, given_values


def replace(values: Float[Tensor, "#batch #pos #width"]) -> Change:
    """Put these in their place.

    Args:
        values: Broadcast to ``[batch, pos, width]``; a vector ``[width]`` is a mean ablation.

    Raises:
        DataError: If they hold NaN.
    """
    kept = given_values("a replacement", values)
    return lambda value: kept.to(value.device).expand_as(value)


REPLACE = Kind("replace", "means, or values of another run, in their place", replace)
