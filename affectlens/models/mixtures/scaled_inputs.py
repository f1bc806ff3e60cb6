"""Experts whose *input* is multiplied by the router's score: Llama 4.

Every expert runs on every token, on zeros where the router did not send it. So the gate is inside
the activation, and an expert's output is added as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affectlens.models.mixtures.layout import ExpertCall, ExpertLayout, Experts
from affectlens.models.mixtures.routing import Routing


class ScaledInputExperts(Experts):
    """See the module.

    Args:
        router: The module that gives scores of all experts, 0 for those not chosen.
        experts: The experts.
    """

    def __init__(self, router: nn.Module, experts: nn.Module) -> None:
        self._router, self._module = router, experts
        self._weights: Any = experts
        self.n_experts, self.d_expert = (int(n) for n in self._weights.down_proj.shape[:2])

    @property
    def module(self) -> nn.Module:
        """See `Experts.module`."""
        return self._module

    @property
    def source(self) -> nn.Module:
        """See `Experts.source`."""
        return self._router

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, /) -> ExpertCall:
        """See `Experts.seen`."""
        (hidden,), scores = (*args, *kwargs.values())[:1], output[0]
        token, expert = scores.nonzero(as_tuple=True)
        expert, order = expert.sort(stable=True)
        ones = scores.new_ones(len(expert))
        routing = Routing(token[order], expert, ones, self.n_experts, len(scores))
        return ExpertCall(hidden.reshape(len(scores), -1), routing, scores)

    def activations(self, call: ExpertCall, routing: Routing) -> Float[Tensor, "pair d_expert"]:
        """See `Experts.activations`."""
        found = call.hidden.new_empty(len(routing.token), self.d_expert)
        for expert, pairs in routing.segments():
            token = routing.token[pairs]
            x = call.hidden[token] * call.weights[token, expert, None]
            gate, up = (x @ self._weights.gate_up_proj[expert]).chunk(2, dim=-1)
            found[pairs] = up * self._weights.act_fn(gate)
        return found

    @torch.no_grad()
    def W_down(self, expert: int) -> Float[Tensor, "d_expert d_model"]:
        """See `Experts.W_down`."""
        return self._weights.down_proj[expert].detach().float()

    def b_down(self, _expert: int, /) -> Float[Tensor, " d_model"] | None:
        """See `Experts.b_down`."""
        return None


def _find(mixture: nn.Module) -> ScaledInputExperts | None:
    router, experts = getattr(mixture, "router", None), getattr(mixture, "experts", None)
    if type(experts).__name__ != "Llama4TextExperts" or not isinstance(router, nn.Module):
        return None
    assert isinstance(experts, nn.Module)
    return ScaledInputExperts(router, experts)


SCALED_INPUTS = ExpertLayout("scaled inputs", "The router's score is multiplied in first", _find)
