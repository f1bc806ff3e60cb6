"""Circuits of mixtures of experts, hybrids and models whose layers differ."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.activations import capture
from affectlens.circuits import Budget, Circuit, choose, contributions, find_circuit, unit_means
from affectlens.circuits.attribution.unit_means import store_means
from affectlens.circuits.units import routed_sizes, there_only, unit_sizes
from affectlens.core import Provenance, Site
from affectlens.models.chat.chats import encode
from affectlens.steering import SteeringPack
from tests.circuits.helpers import (
    EMOTIONS,
    direction,
    hooks,
    random_directions,
    record_of,
    small_corpus,
)
from tests.conftest import tiny_tokenizer
from tests.mixtures import MIXTURES, mixture_hf


@cache
def mixture(name: str) -> Any:
    from affectlens import load_model

    return load_model(mixture_hf(name), tokenizer=tiny_tokenizer())


@pytest.mark.parametrize("name", MIXTURES)
def test_units_and_biases_sum_to_the_sublayers(name: str) -> None:
    model, corpus = mixture(name), small_corpus()
    found = contributions(model, corpus, random_directions(model))
    assert found.residue() < 1e-4
    kinds = {bool(part.n_heads): part.layer for part in model.anatomy.blocks}
    assert float(found.totals[:, kinds[True], 0].abs().min()) > 1e-3
    for part in model.anatomy.blocks:
        assert part.n_neurons, part.lacks
        assert bool(found.neurons[:, part.layer, part.n_neurons :].eq(0).all())
        assert float(found.totals[:, part.layer, 1].abs().min()) > 1e-4


@pytest.mark.parametrize("name", ["deepseek_v3", "gpt_oss", "llama4", "granitemoe"])
def test_a_neuron_of_an_expert_adds_what_the_mlp_loses_without_it(name: str) -> None:
    """Mean over an emotion's replies of the drop of ``⟨mlp_out, v⟩`` in the plain model."""
    model, corpus = mixture(name), small_corpus()
    directions = random_directions(model)
    found = contributions(model, corpus, directions)
    e, part = 1, [part for part in model.anatomy.blocks if part.experts is not None][-1]
    layer = part.layer
    v = direction(directions, layer, "resid_post")[e]
    records = record_of(corpus, EMOTIONS[e])
    routed = found.neurons[e, layer, : part.experts.n_routed]
    assert int((routed != 0).sum()) > len(routed) / 4
    strongest = [int(i) for i in routed.abs().topk(2).indices]
    for neuron in (*strongest, part.n_neurons - 1):
        weight = out_of(part, neuron)
        before = mlp_projection(model, records, layer, v)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            lost = before - mlp_projection(model, records, layer, v)
            weight.copy_(kept)
        torch.testing.assert_close(found.neurons[e, layer, neuron], lost, atol=2e-5, rtol=1e-3)


def mlp_projection(model: Any, records: Any, layer: int, v: Tensor) -> Tensor:
    """Mean over replies of ``⟨mlp_out, v⟩``, one plain pass each, by what the block adds."""
    values: list[Tensor] = []
    part = model.anatomy.blocks[layer]
    for record in records:
        row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
        given: list[Tensor] = []
        look = (part.mid_reader, lambda x, given=given: given.append(x[0].clone()), "in")
        end = (part.block, lambda x, given=given: given.append(x[0].clone()), "out")
        with torch.no_grad(), hooks(look, end):
            model.hf(torch.tensor([row.ids]))
        start, stop = row.spans["reply"]
        values.append(((given[1] - given[0])[start:stop] @ v).mean())
    return torch.stack(values).mean()


def out_of(part: Any, neuron: int) -> Tensor:
    """What leads out of a neuron: a view of the parameter."""
    expert, index = part.experts.place(neuron)
    experts = next(x for name, x in part.mlp.named_modules() if name == "experts")
    if expert < len(experts.down_proj):
        weight = experts.down_proj[expert]
        return weight[index] if weight.shape[-1] == 32 else weight[:, index]
    return part.experts.shared[expert - len(experts.down_proj)].down.weight[:, index]


def test_experts_and_gates_are_sites() -> None:
    """What the router gives is what the plain router says; neurons are those of the means."""
    model, corpus = mixture("qwen3_moe"), small_corpus()
    store = capture(model, corpus, sites="expert_weights,resid_mid")
    means = unit_means(model, corpus, EMOTIONS)
    held = capture(model, corpus, sites="mlp_post,z")
    neurons, heads = store_means(held, EMOTIONS, model.anatomy)
    torch.testing.assert_close(neurons, means.mean("neurons"), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads, means.mean("heads"), atol=1e-5, rtol=1e-4)
    site = Site.parse("blocks.1.mlp.hook_expert_weights")
    assert site == Site(1, "expert_weights")
    read = store.to_torch(site)
    block = model.hf.model.layers[1]
    for i, record in enumerate(corpus):
        row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
        seen: list[Tensor] = []
        handle = block.mlp.register_forward_pre_hook(lambda _m, a, seen=seen: seen.append(a[0][0]))
        with torch.no_grad():
            model.hf(torch.tensor([row.ids]))
        handle.remove()
        probabilities = (seen[0] @ block.mlp.gate.weight.T).softmax(-1)
        top = probabilities.topk(2, dim=-1)
        gates = torch.zeros_like(probabilities)
        gates.scatter_(1, top.indices, top.values / top.values.sum(-1, keepdim=True))
        span = slice(*row.spans["reply"])
        torch.testing.assert_close(read[i], gates[span].mean(0), atol=1e-5, rtol=1e-4)


def test_heads_and_shared_experts_fold_exactly() -> None:
    """Latent attention, whose heads are as wide as their values; the first layer dense."""
    model = mixture("deepseek_v3")
    circuit = random_circuit(model)
    attn, mlp = circuit.folded(model)
    e, blocks = 1, model.anatomy.blocks
    for kind, vectors in (("heads", attn), ("neurons", mlp)):
        inputs, outputs = [], []
        for part in blocks:
            if kind == "heads":
                delta = circuit.delta_heads[e, part.layer] * circuit.masks()[1][e, part.layer]
                inside = part.o_proj
            else:
                delta = circuit.delta_neurons[e, part.layer] * circuit.masks()[0][e, part.layer]
                routed = int(circuit.routed[part.layer])
                delta = delta[routed : part.n_neurons]
                inside = part.down_proj if part.experts is None else part.experts.shared[0].down
            outside = part.attn if kind == "heads" else part.mlp
            vector = vectors[e, part.layer]
            inputs.append((inside, lambda x, delta=delta: x + delta, "in"))
            outputs.append((outside, lambda x, vector=vector: x + vector, "out"))
        results = [logits_under(model, edits) for edits in (inputs, outputs, [])]
        torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(results[0], results[2], atol=1e-2)


def test_what_is_folded_of_experts_is_the_mean_over_gates() -> None:
    """What a token gets is its gate over the mean gate times that; gpt-oss has a bias to add it to.

    So the fold is right on average over the tokens that the means are of, and off at each token by
    as much as its gates differ from their means, which is not little.
    """
    model, corpus = mixture("gpt_oss"), small_corpus()
    circuit = random_circuit(model, corpus)
    layer, e = 1, 0
    experts = model.hf.model.layers[layer].mlp.experts
    folded = circuit.folded(model)[1][e, layer]
    store = capture(model, corpus, sites=[Site(layer, "expert_weights")], positions="all")
    gates = store.to_torch(Site(layer, "expert_weights"), "all")
    mean = gates.mean(0)
    assert float(mean.min()) > 0
    delta = circuit.delta_neurons[e, layer] * circuit.masks()[0][e, layer]
    at_input = delta.unflatten(0, (4, -1)) / mean[:, None]
    written = torch.einsum("en,end->ed", at_input, experts.down_proj.detach())
    before = mlp_outputs(model, corpus, layer)
    kept = experts.down_proj_bias.detach().clone()
    with torch.no_grad():
        experts.down_proj_bias += written
        changes = mlp_outputs(model, corpus, layer) - before
        experts.down_proj_bias.copy_(kept)
    torch.testing.assert_close(changes.mean(0), folded, atol=1e-4, rtol=1e-4)
    expected = ((gates - mean)[..., None] * written).sum(1)
    torch.testing.assert_close(changes - folded, expected, atol=1e-4, rtol=1e-3)
    off = float((changes - folded).norm(dim=-1).mean() / folded.norm())
    assert 0.3 < off < 3, off
    assert "neurons of experts, a mean over gates" in repr(circuit)


def mlp_outputs(model: Any, corpus: Any, layer: int) -> Tensor:
    """What the MLP of a layer gives at all tokens of a corpus, in plain passes."""
    found: list[Tensor] = []
    look = (model.hf.model.layers[layer].mlp, lambda x: found.append(x[0].clone()), "out")
    for record in corpus:
        row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
        with torch.no_grad(), hooks(look):
            model.hf(torch.tensor([row.ids]))
    return torch.cat(found)


def logits_under(model: Any, edits: Any) -> Tensor:
    with torch.no_grad(), hooks(*edits):
        return model.hf(torch.tensor([[5, 6, 7, 8, 9, 10]])).logits


def random_circuit(model: Any, corpus: Any = None) -> Circuit:
    """Four random neurons of every layer (of shared experts alone without a corpus), two heads."""
    generator = torch.Generator().manual_seed(3)
    anatomy = model.anatomy
    sizes, routed = unit_sizes(anatomy), routed_sizes(anatomy)
    e, n = len(EMOTIONS), anatomy.n_layers
    neurons = torch.rand(e, n, int(sizes[:, 1].max()), generator=generator)
    heads = torch.rand(e, n, anatomy.n_heads, generator=generator)
    if corpus is None:
        index = torch.arange(neurons.shape[-1])
        neurons = neurons + (index >= routed[:, None])
    counts = torch.tensor([2, 6]).expand(e, n, 2)
    width = anatomy.n_heads * anatomy.d_head
    return Circuit(
        emotions=EMOTIONS,
        neurons=choose(there_only(neurons, sizes[:, 1]), counts[..., 1], EMOTIONS, neurons),
        heads=choose(there_only(heads, sizes[:, 0]), counts[..., 0], EMOTIONS, heads),
        neuron_scores=neurons,
        head_scores=heads,
        delta_neurons=torch.randn(neurons.shape, generator=generator),
        delta_heads=torch.randn(e, n, width, generator=generator),
        allocation=counts.clone(),
        sizes=sizes,
        routed=routed,
        influence=None,
        delta_source="group_mean",
        position="mean:reply",
        provenance=Provenance("circuit", model=model.fingerprint, model_name=model.name),
    )


@pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3", "llama4", "qwen3_next"])
def test_a_circuit_is_found_saved_and_steers(name: str, tmp_path: Path) -> None:
    """Heads where there are heads, neurons where there are neurons, and no others."""
    model, corpus = mixture(name), small_corpus()
    found = find_circuit(
        model,
        corpus,
        random_directions(model),
        prompts=[[5, 6, 7, 8, 9], [10, 11, 12, 13]],
        budget=Budget(per_sublayer=6.0, floor_heads=1),
        words={e: (w,) for e, w in zip(EMOTIONS, ("angry", "dark", "happy"), strict=True)},
    )
    for emotion in EMOTIONS:
        for kind, column in (("heads", 0), ("neurons", 1)):
            units = found.units(emotion, kind)
            assert units
            assert all(unit.index < found.sizes[unit.layer, column] for unit in units)
    found.save(tmp_path / "circuit.safetensors")
    again = Circuit.load(tmp_path / "circuit.safetensors")
    assert again.neurons == found.neurons
    assert torch.equal(again.routed, found.routed)
    pack = SteeringPack.from_circuit(again, model, positions="all")
    attn, mlp = found.folded(model)
    edits = []
    for part in model.anatomy.blocks:
        for vectors, module in ((attn, part.attn), (mlp, part.mlp)):
            vector = 0.7 * vectors[1, part.layer]
            edits.append((module, lambda x, vector=vector: x + vector, "out"))
    with pack.steer(model, {"fear": 0.7}), torch.no_grad():
        steered = model.hf(torch.tensor([[5, 6, 7, 8, 9, 10]])).logits
    torch.testing.assert_close(steered, logits_under(model, edits), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(steered, logits_under(model, []), atol=1e-3)
    random = found.randomised(1)
    assert all(
        unit.index < found.sizes[unit.layer, 1] for e in EMOTIONS for unit in random.neurons[e]
    )
