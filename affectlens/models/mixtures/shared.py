"""Shared experts: dense MLPs beside the routed ones, that every token runs through."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from affectlens.models.linear_map import linear_map, linear_offset, shape_in_out

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

    down: nn.Module
    gate: nn.Module | None

    @property
    def d_mlp(self) -> int:
        """How many neurons."""
        sizes = shape_in_out(self.down)
        assert sizes is not None
        return sizes[0]

    def W_down(self) -> Float[Tensor, "d_mlp d_model"]:
        """Down projection, fp32."""
        return linear_map(self.down)

    def b_down(self) -> Float[Tensor, " d_model"] | None:
        """Its bias, fp32."""
        return linear_offset(self.down)


def find_shared(mixture: nn.Module) -> tuple[SharedExpert | None, ...]:
    """The shared experts of a mixture's module; None for one that is kept in an unknown way."""
    gate = getattr(mixture, _GATE, None)
    modules = (getattr(mixture, name, None) for name in _NAMES)
    return tuple(as_shared(one, gate) for one in modules if isinstance(one, nn.Module))


def as_shared(module: nn.Module, gate: nn.Module | None) -> SharedExpert | None:
    """A dense MLP as a shared expert; None if it does not end in a linear module of a known name.

    Args:
        module: The MLP.
        gate: See `SharedExpert`.
    """
    down = next((getattr(module, name) for name in _DOWN if hasattr(module, name)), None)
    if not isinstance(down, nn.Module) or shape_in_out(down) is None:
        return None
    found = SharedExpert(down, gate)
    biased = getattr(down, "bias", None) is not None
    return None if gate is not None and biased else found
