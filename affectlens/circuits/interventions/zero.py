"""Zero ablation: nothing in the place of the values. Far off the model's own distribution."""

from __future__ import annotations

import torch

from affectlens.circuits.interventions.base import Change, Kind


def zero() -> Change:
    """Zeros."""
    return torch.zeros_like


ZERO = Kind("zero", "zeros in their place", zero)
