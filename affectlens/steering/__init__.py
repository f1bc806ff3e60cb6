"""Steering: what a user asks (spec), what travels (pack), what is done (operators, positions).

Names are looked up on first use: reading a spec does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from affectlens.steering.pack import SteeringPack
    from affectlens.steering.spec import SteeringSpec
    from affectlens.steering.table import SteeringTable
    from affectlens.steering.transformers import generate_steered, steering

_HOMES = {
    "SteeringPack": "pack",
    "SteeringSpec": "spec",
    "SteeringTable": "table",
    "generate_steered": "transformers",
    "steering": "transformers",
}

__all__ = ["SteeringPack", "SteeringSpec", "SteeringTable", "generate_steered", "steering"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
