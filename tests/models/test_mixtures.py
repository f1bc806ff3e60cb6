"""Neurons of experts against what the plain model adds, family by family and kernel by kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.models.mixtures.check import recomposed
from affectlens.models.mixtures.layouts import find_experts
from affectlens.models.mixtures.mixture import Mixture, MixtureCall, find_mixture
from affectlens.models.mixtures.routing import Routing, Rows, pooled
from affectlens.models.mixtures.watching import watching_mixtures
from tests.mixtures import MIXTURES, mixture_hf

IDS = torch.arange(30).reshape(3, 10) + 5
KERNELS = ("eager", "grouped_mm", "batched_mm")


def first_output(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def mixture_modules(hf: Any) -> dict[int, Any]:
    """By layer, the module that holds experts."""
    return {
        i: module
        for i, block in enumerate(hf.model.layers)
        for module in block.modules()
        if find_experts(module) is not None
    }


def watched(hf: Any) -> dict[int, tuple[MixtureCall, Tensor]]:
    """Every mixture's call in one plain pass, and what its module gave, by token."""
    modules = mixture_modules(hf)
    mixtures: dict[int, Mixture] = {}
    for i, module in modules.items():
        mixture = find_mixture(module)
        assert mixture is not None
        mixtures[i] = mixture
    assert mixtures
    outputs: dict[int, Tensor] = {}
    calls: dict[int, MixtureCall] = {}
    handles = [
        module.register_forward_hook(
            lambda _m, _a, out, i=i: outputs.update({i: first_output(out).reshape(-1, 32).clone()})
        )
        for i, module in modules.items()
    ]
    with torch.no_grad(), watching_mixtures(mixtures, calls.__setitem__):
        hf(input_ids=IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    return {i: (calls[i], outputs[i]) for i in mixtures}


@pytest.mark.parametrize("name", MIXTURES)
def test_neurons_of_all_experts_add_up_to_the_output(name: str) -> None:
    hf = mixture_hf(name)
    for call, output in watched(hf).values():
        torch.testing.assert_close(recomposed(call), output, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["gpt_oss", "qwen2_moe"])
def test_whatever_kernel_runs_the_experts(name: str, kernel: str) -> None:
    hf = mixture_hf(name)
    before = hf.config._experts_implementation
    try:
        hf.set_experts_implementation(kernel)
        for call, output in watched(hf).values():
            torch.testing.assert_close(recomposed(call), output, atol=2e-5, rtol=1e-4)
    finally:
        hf.set_experts_implementation(before)


@pytest.mark.parametrize("name", MIXTURES)
def test_each_neuron_adds_what_the_output_loses_without_it(name: str) -> None:
    """With what leads out of it set to zero, in routed and in shared experts."""
    hf = mixture_hf(name)
    layer, (call, output) = max(watched(hf).items())
    mixture = call.mixture
    v = torch.randn(32, generator=torch.Generator().manual_seed(1))
    gated = call.rows(torch.arange(30), None)
    contributions = gated * mixture.neuron_weights(v[None])
    used = int(gated[:, : mixture.n_routed].abs().sum(0).argmax())
    for neuron in {used, 0, mixture.n_routed - 1, mixture.n_neurons - 1}:
        outgoing = out_of(mixture_modules(hf)[layer], *mixture.place(neuron))
        kept = outgoing.detach().clone()
        with torch.no_grad():
            outgoing.zero_()
            lost = (output - watched(hf)[layer][1]) @ v
            outgoing.copy_(kept)
        torch.testing.assert_close(contributions[:, neuron], lost, atol=3e-5, rtol=1e-3)
    assert float(contributions[:, used].abs().max()) > 1e-3


def out_of(module: Any, expert: int, index: int) -> Tensor:
    """What leads out of a neuron: a view of the parameter."""
    weight = module.experts.down_proj
    if expert < len(weight):
        transposed = weight.shape[-1] == 32  # [expert, neuron, d_model]
        return weight[expert][index] if transposed else weight[expert][:, index]
    shared = getattr(module, "shared_expert", None) or module.shared_experts
    return shared.down_proj.weight[:, index]


def some_routing() -> tuple[Routing, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randperm(5, generator=generator)[:2] for _ in range(7)])
    index[3, 1] = 5  # nowhere
    gate = torch.rand(7, 2, generator=generator)
    return Routing.of_top_k(index, gate, 5), index, gate


def test_pairs_are_sorted_by_expert_and_hold_every_choice() -> None:
    routing, index, gate = some_routing()
    assert routing.expert.tolist() == sorted(routing.expert.tolist())
    table = torch.zeros(7, 5)
    for token in range(7):
        for k in range(2):
            if index[token, k] < 5:
                table[token, index[token, k]] = gate[token, k]
    torch.testing.assert_close(routing.spread(routing.gate), table)
    found = torch.cat([routing.expert[pairs] for _, pairs in routing.segments()])
    assert found.tolist() == routing.expert.tolist()
    one = routing.of_tokens(torch.arange(7) == 2)
    assert one.token.tolist() == [2, 2]


def test_rows_are_means_of_what_each_expert_did() -> None:
    """Tokens in two rows, in one and in none, each with a factor; by loops."""
    routing, _, _ = some_routing()
    values = torch.randn(len(routing.token), 3, generator=torch.Generator().manual_seed(2))
    index, bags, factor = torch.tensor([4, 0, 1, 4, 6]), torch.tensor([0, 1, 3]), torch.rand(7)
    rows = Rows.means(index, bags).times(factor)
    expected, plain = torch.zeros(3, 5, 3), torch.zeros(3, 7)
    for row, tokens in enumerate([[4], [0, 1], [4, 6]]):
        for token in tokens:
            plain[row, token] += 1 / len(tokens) * factor[token]
            for pair in range(len(routing.token)):
                if routing.token[pair] == token:
                    share = factor[token] / len(tokens)
                    expected[row, routing.expert[pair]] += share * values[pair]
    torch.testing.assert_close(pooled(values, routing, rows), expected)
    dense = torch.randn(7, 4)
    torch.testing.assert_close(rows.sums(dense), plain @ dense)
    alone = Rows.means(index, None)
    torch.testing.assert_close(alone.sums(dense), dense[index])


def test_an_unknown_layout_is_no_mixture() -> None:
    module = torch.nn.Module()
    module.experts = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(2)])
    assert find_mixture(module) is None
