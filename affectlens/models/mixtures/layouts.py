"""The table of expert layouts: a file and a row for each."""

from __future__ import annotations

from torch import nn

from affectlens.core.registry import Registry
from affectlens.models.mixtures.fused import FUSED
from affectlens.models.mixtures.layout import ExpertLayout, Experts
from affectlens.models.mixtures.scaled_inputs import SCALED_INPUTS

LAYOUTS: Registry[ExpertLayout] = Registry("expert layout", FUSED, SCALED_INPUTS)


def find_experts(mixture: nn.Module) -> Experts | None:
    """The experts of a mixture's module, if they are kept in a way that the table knows."""
    found = (layout.find(mixture) for layout in LAYOUTS.values())
    return next((experts for experts in found if experts is not None), None)
