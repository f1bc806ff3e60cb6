"""A mixture of experts as one linear map of its neurons and gates.

What it adds is ``Σ_e g_e (a_e W_e + b_e) + Σ_s g_s (a_s W_s + b_s)``, over the routed experts ``e``
(``g_e = 0`` for tokens that the router sent elsewhere) and the shared ones ``s`` (``g_s = 1`` where
they have no gate). So it is linear in *gated neurons* ``g a`` and gates ``g``, and means of these
over tokens give the exact mean of what each neuron of each expert contributes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affectlens.models.mixtures.layout import ExpertCall, Experts
from affectlens.models.mixtures.layouts import find_experts
from affectlens.models.mixtures.routing import Rows, pooled
from affectlens.models.mixtures.shared import SharedExpert, find_shared


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parts of a mixture.

    Neurons are numbered expert by expert, the routed ones first, then the shared ones; gates
    likewise.

    Attributes:
        experts: Those that tokens are sent to.
        shared: Those that every token runs through.
    """

    experts: Experts
    shared: tuple[SharedExpert, ...]

    @property
    def n_neurons(self) -> int:
        """Neurons of all experts."""
        return self.n_routed + sum(one.d_mlp for one in self.shared)

    @property
    def n_routed(self) -> int:
        """Neurons of the routed experts, which come first."""
        return self.experts.n_experts * self.experts.d_expert

    @property
    def n_gates(self) -> int:
        """Routed and shared experts."""
        return self.experts.n_experts + len(self.shared)

    def place(self, neuron: int) -> tuple[int, int]:
        """Expert of a neuron (numbered as gates are), and its index there."""
        if neuron < self.n_routed:
            return divmod(neuron, self.experts.d_expert)
        expert, left = self.experts.n_experts, neuron - self.n_routed
        for one in self.shared:
            if left < one.d_mlp:
                return expert, left
            expert, left = expert + 1, left - one.d_mlp
        raise IndexError(neuron)

    def W_down(self, expert: int) -> Float[Tensor, "neuron d_model"]:
        """Down projection of an expert, numbered as gates are; fp32."""
        routed = self.experts.n_experts
        if expert < routed:
            return self.experts.W_down(expert)
        return self.shared[expert - routed].W_down()

    def b_down(self, expert: int) -> Float[Tensor, " d_model"] | None:
        """Its bias, fp32."""
        routed = self.experts.n_experts
        if expert < routed:
            return self.experts.b_down(expert)
        return self.shared[expert - routed].b_down()

    def neuron_weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k neuron"]:
        """``⟨W_down[n], v⟩``: what one unit of a gated neuron adds along some vectors."""
        found = (self.W_down(expert) for expert in range(self.n_gates))
        return torch.cat([v.to(weight.device) @ weight.T for weight in found], dim=1)

    def gate_weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k gate"]:
        """``⟨b_down[e], v⟩``: what one unit of a gate adds by the bias of its expert."""
        found = [self.b_down(expert) for expert in range(self.n_gates)]
        none = v.new_zeros(len(v))
        return torch.stack([none if b is None else v.to(b.device) @ b for b in found], dim=1)

    def written(self, neurons: Float[Tensor, "k neuron"]) -> Float[Tensor, "k d_model"]:
        """``Σ_n x[n] W_down[n]``: what gated neurons add to the output."""
        sizes = [self.experts.d_expert] * self.experts.n_experts
        sizes += [one.d_mlp for one in self.shared]
        total: Tensor | None = None
        for expert, x in enumerate(neurons.split(sizes, dim=1)):
            if not bool(x.any()):
                continue
            weight = self.W_down(expert)
            part = x.to(weight.device, weight.dtype) @ weight
            total = part if total is None else total + part.to(total.device)
        if total is None:
            weight = self.W_down(0)
            return weight.new_zeros(len(neurons), weight.shape[1])
        return total


@dataclass(frozen=True, eq=False)
class MixtureCall:
    """What a mixture did in one pass: its rows are worked out for the tokens read only.

    Attributes:
        mixture: Which.
        routed: What the routed experts were called with.
        shared: Neurons of each shared expert and its gate, over the tokens of the batch.
        factor: What every token is multiplied by, if by anything.
    """

    mixture: Mixture
    routed: ExpertCall
    shared: tuple[tuple[Float[Tensor, "token d_mlp"], Float[Tensor, " token"] | None], ...]
    factor: Float[Tensor, " token"] | None = field(default=None)

    @property
    def device(self) -> torch.device:
        """Of what it was called with."""
        return self.routed.hidden.device

    def times(self, factor: Float[Tensor, "*token"]) -> MixtureCall:
        """The same with every token multiplied by a number of its own."""
        factor = factor.flatten()
        return replace(self, factor=factor if self.factor is None else factor * self.factor)

    @torch.no_grad()
    def rows(
        self, index: Int[Tensor, " token"], bags: Int[Tensor, " row"] | None
    ) -> Float[Tensor, "row neurons_and_gates"]:
        """Gated neurons, then gates: of single tokens, or means over bags of them.

        Args:
            index: Tokens in the flattened batch.
            bags: Where the tokens of each row start; None if every row is one token.
        """
        rows = Rows.means(index, bags)
        if self.factor is not None:
            rows = rows.times(self.factor)
        wanted = torch.zeros(self.routed.routing.n_tokens, dtype=torch.bool, device=index.device)
        wanted[index] = True
        routing = self.routed.routing.of_tokens(wanted)
        neurons = self.mixture.experts.activations(self.routed, routing).float()
        gate = routing.gate.float()[:, None]
        parts = [pooled(neurons * gate, routing, rows).flatten(1)]
        gates = [pooled(gate, routing, rows).flatten(1)]
        for x, by in self.shared:
            by = torch.ones(len(x), device=x.device) if by is None else by.float()
            gates.append(rows.sums(by[:, None]))
            parts.append(rows.times(by).sums(x))
        return torch.cat([*parts, *gates], dim=1)


def find_mixture(module: nn.Module) -> Mixture | None:
    """The parts of a module that is a mixture; None if its experts are kept in an unknown way."""
    experts = find_experts(module)
    return None if experts is None else Mixture(experts, find_shared(module))
