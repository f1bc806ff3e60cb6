"""Changes along directions alone: projected out, or held at a value."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.interventions.base import Change, Kind
from affectlens.core.errors import DataError


def project_out(directions: Float[Tensor, "k width"]) -> Change:
    """``x - QᵀQ x`` with ``Q`` an orthonormal basis of the directions.

    Args:
        directions: Of any length, not all zero; they may depend on each other.

    Raises:
        DataError: If they are NaN or all zero.
    """
    _, sizes, rows = torch.linalg.svd(_checked(directions).double(), full_matrices=False)
    basis = rows[sizes > 1e-6 * sizes.max()].float()
    return lambda value: value - (value @ basis.T.to(value.device)) @ basis.to(value.device)


def clamp(direction: Float[Tensor, " width"], value: float) -> Change:
    """``x + (c - <x, u>) u`` with ``u`` the direction at length one.

    Args:
        direction: Of any length but zero.
        value: What the projection on the unit direction is held at, in units of the place.

    Raises:
        DataError: If the direction is zero or anything is NaN.
    """
    if not math.isfinite(value):
        raise DataError(f"A projection cannot be held at {value}; give a finite number.")
    unit = torch.nn.functional.normalize(_checked(direction[None])[0], dim=0)

    def change(x: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos width"]:
        u = unit.to(x.device)
        return x + (value - x @ u)[..., None] * u

    return change


def _checked(directions: Tensor) -> Tensor:
    if not bool(directions.isfinite().all()) or not bool(directions.any()):
        raise DataError("A direction to project on holds NaN, or is zero; give another one.")
    return directions.float()


PROJECT_OUT = Kind("project_out", "their part along directions taken out", project_out)
CLAMP = Kind("clamp", "their projection on a direction held at a value", clamp)
