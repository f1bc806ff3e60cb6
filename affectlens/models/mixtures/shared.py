"""Shared experts: dense MLPs beside the routed ones, that every token runs through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_NAMES = ("shared_expert", "shared_experts", "shared_mlp")
_DOWN = ("down_proj", "output_linear")
_GATE = "shared_expert_gate"


@dataclass(frozen=True, eq=False)
class SharedExpert:
    """One of them.

    Attributes:
        down: Its ``W_down``, a linear module.
        gate: The module whose output, after a sigmoid, its output is multiplied by (Qwen 2 MoE,
            Qwen3-Next); None where it is added as it is.
    """

    down: nn.Linear
    gate: nn.Module | None

    @property
    def d_mlp(self) -> int:
        """How many neurons."""
        return self.down.in_features

    @torch.no_grad()
    def W_down(self) -> Float[Tensor, "d_mlp d_model"]:
        """Down projection, fp32."""
        return self.down.weight.detach().float().T

    @torch.no_grad()
    def b_down(self) -> Float[Tensor, " d_model"] | None:
        """Its bias, fp32."""
        bias: Any = self.down.bias
        return None if bias is None else bias.detach().float()


def find_shared(mixture: nn.Module) -> tuple[SharedExpert, ...]:
    """The shared experts of a mixture's module."""
    gate = getattr(mixture, _GATE, None)
    found: list[SharedExpert] = []
    for module in (getattr(mixture, name, None) for name in _NAMES):
        down = next((getattr(module, name) for name in _DOWN if hasattr(module, name)), None)
        if isinstance(down, nn.Linear):
            found.append(SharedExpert(down, gate if isinstance(gate, nn.Module) else None))
    return tuple(found)
