"""Values times a number: 0 is zero ablation, 1 changes nothing, 2 doubles."""

from __future__ import annotations

import math

from affectlens.circuits.interventions.base import Change, Kind
from affectlens.core.errors import DataError


def scale(factor: float) -> Change:
    """``c · x``.

    Raises:
        DataError: If the factor is NaN or infinite.
    """
    if not math.isfinite(factor):
        raise DataError(f"Values cannot be scaled by {factor}; give a finite number.")
    return lambda value: value * factor


SCALE = Kind("scale", "they times a number", scale)
