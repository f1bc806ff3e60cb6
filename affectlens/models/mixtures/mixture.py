"""A mixture of experts as one linear map of its neurons.

What it adds is ``Σ_e g_e (a_e W_e + b_e) + Σ_s (g_s a_s W_s + b_s)``, over the routed experts ``e``
(``g_e = 0`` for tokens that the router sent elsewhere) and the shared ones ``s`` (``g_s = 1`` where
they have no gate). So it is linear in *gated neurons* ``g a`` and in gates, and means of these over
tokens give the exact mean of what each neuron of each expert contributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affectlens.models.mixtures.layout import ExpertCall, Experts
from affectlens.models.mixtures.layouts import find_experts
from affectlens.models.mixtures.routing import Rows, pooled
from affectlens.models.mixtures.shared import SharedExpert, as_shared, find_shared
from affectlens.models.placement import loaded


@dataclass(frozen=True, eq=False)
class Mixture:
    """The parts of a mixture.

    Neurons are numbered expert by expert, the routed ones first, then the shared ones.

    Attributes:
        module: Whose output it is.
        experts: Those that tokens are sent to.
        shared: Those that every token runs through, within the module or beside it.
    """

    module: nn.Module
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

    def place(self, neuron: int) -> tuple[int, int]:
        """Expert of a neuron (shared ones have the last numbers), and its index there."""
        if neuron < self.n_routed:
            return divmod(neuron, self.experts.d_expert)
        expert, left = self.experts.n_experts, neuron - self.n_routed
        for one in self.shared:
            if left < one.d_mlp:
                return expert, left
            expert, left = expert + 1, left - one.d_mlp
        raise IndexError(neuron)

    def W_down(self, expert: int) -> Float[Tensor, "neuron d_model"]:
        """Down projection of an expert, numbered as `place` does; fp32."""
        routed = self.experts.n_experts
        if expert < routed:
            return self.experts.W_down(expert)
        return self.shared[expert - routed].W_down()

    def neuron_weights(self, v: Float[Tensor, "k d_model"]) -> Float[Tensor, "k neuron"]:
        """``⟨W_down[n], v⟩``: what one unit of a gated neuron adds along some vectors."""
        experts = range(self.experts.n_experts + len(self.shared))
        with loaded(self.experts.module):
            weights = (self.W_down(expert) for expert in experts)
            return torch.cat([v.to(weight.device) @ weight.T for weight in weights], dim=1)

    def b_down(self) -> Float[Tensor, "expert d_model"] | None:
        """Biases of the routed experts, which gates multiply too; fp32."""
        with loaded(self.experts.module):
            found = [self.experts.b_down(expert) for expert in range(self.experts.n_experts)]
        biases = [bias for bias in found if bias is not None]
        return torch.stack(biases) if biases else None

    def shared_bias(self) -> Float[Tensor, " d_model"] | None:
        """What the biases of shared experts add to every token."""
        biases = [bias for bias in (one.b_down() for one in self.shared) if bias is not None]
        return torch.stack(biases).sum(0) if biases else None

    def written(self, neurons: Float[Tensor, "k neuron"]) -> Float[Tensor, "k d_model"]:
        """``Σ_n x[n] W_down[n]``: what gated neurons add to the output."""
        sizes = [self.experts.d_expert] * self.experts.n_experts
        sizes += [one.d_mlp for one in self.shared]
        total: Tensor | None = None
        with loaded(self.experts.module):
            for expert, x in enumerate(neurons.split(sizes, dim=1)):
                # Of hundreds of experts a circuit has a few.
                if total is not None and not bool(x.detach().any()):
                    continue
                weight = self.W_down(expert)
                part = x.to(weight.device, weight.dtype) @ weight
                total = part if total is None else total + part.to(total.device)
        assert total is not None  # there is a first expert
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
    ) -> Float[Tensor, "row neuron"]:
        """Gated neurons of single tokens, or means over bags of them.

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
        experts = self.mixture.experts
        with loaded(experts.module):
            neurons = experts.activations(self.routed, routing).float()
        parts = [pooled(neurons * routing.gate.float()[:, None], routing, rows).flatten(1)]
        for x, gate in self.shared:
            parts.append((rows if gate is None else rows.times(gate)).sums(x))
        return torch.cat(parts, dim=1)


def find_mixture(module: nn.Module, beside: Sequence[nn.Module] = ()) -> Mixture | None:
    """The parts of a module that is a mixture.

    Args:
        module: The module.
        beside: Modules whose output is added to the same place (Granite's shared MLP).

    Returns:
        None if the experts are kept, or beside them something is added, in an unknown way.
    """
    experts = find_experts(module)
    shared = [*find_shared(module), *(as_shared(one, None) for one in beside)]
    known = [one for one in shared if one is not None]
    if experts is None or len(known) < len(shared):
        return None
    return Mixture(module, experts, tuple(known))
