"""Experts in three-dimensional parameters, called with tokens, indices and gates.

Most families in transformers: Mixtral, Qwen, gpt-oss, DeepSeek, GLM, OLMoE, Granite, MiniMax. Which
kernel runs them (``experts_implementation``) makes no difference to what the module is called with,
and the module says itself how its parameters are laid out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.models.mixtures.layout import ExpertCall, ExpertLayout, Experts
from affectlens.models.mixtures.routing import Routing

_FLAGS = ("has_gate", "has_bias", "is_transposed")


class FusedExperts(Experts):
    """See the module.

    Args:
        module: The experts.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module: Any = module
        self._up: str = "gate_up_proj" if self._module.has_gate else "up_proj"
        shape = self._module.down_proj.shape
        self.n_experts = int(shape[0])
        self.d_expert = int(shape[1] if self._module.is_transposed else shape[2])

    @property
    def module(self) -> nn.Module:
        """See `Experts.module`."""
        return self._module

    @property
    def source(self) -> nn.Module:
        """See `Experts.source`."""
        return self._module

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], _output: Any, /) -> ExpertCall:
        """See `Experts.seen`."""
        hidden, index, gate = (*args, *kwargs.values())[:3]
        hidden = hidden.reshape(-1, hidden.shape[-1])
        routing = Routing.of_top_k(index, gate, self.n_experts)
        return ExpertCall(hidden, routing, routing.spread(routing.gate))

    def activations(self, call: ExpertCall, routing: Routing) -> Float[Tensor, "pair d_expert"]:
        """See `Experts.activations`."""
        module = self._module
        weight = getattr(module, self._up)
        bias: Any = getattr(module, f"{self._up}_bias", None)
        found = call.hidden.new_empty(len(routing.token), self.d_expert)
        for expert, pairs in routing.segments():
            matrix = weight[expert]
            x = call.hidden[routing.token[pairs]].to(matrix.dtype)
            up = x @ (matrix if module.is_transposed else matrix.T)
            if module.has_bias:
                up = up + bias[expert]
            found[pairs] = module._apply_gate(up) if module.has_gate else module.act_fn(up)
        return found

    @torch.no_grad()
    def W_down(self, expert: int) -> Float[Tensor, "d_expert d_model"]:
        """See `Experts.W_down`."""
        weight = self._module.down_proj[expert].detach().float()
        return weight if self._module.is_transposed else weight.T

    @torch.no_grad()
    def b_down(self, expert: int, /) -> Float[Tensor, " d_model"] | None:
        """See `Experts.b_down`."""
        if not self._module.has_bias:
            return None
        return self._module.down_proj_bias[expert].detach().float()


def _find(mixture: nn.Module) -> FusedExperts | None:
    module: Any = getattr(mixture, "experts", None)
    if not isinstance(module, nn.Module) or not all(hasattr(module, name) for name in _FLAGS):
        return None
    names = ["down_proj", "gate_up_proj" if module.has_gate else "up_proj"]
    matrices = [getattr(module, name, None) for name in names]
    if not all(isinstance(x, Tensor) and x.ndim == 3 and x.is_floating_point() for x in matrices):
        return None
    return FusedExperts(module)


FUSED = ExpertLayout("fused", "Three-dimensional parameters, called with top-k indices", _find)
