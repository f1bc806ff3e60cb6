from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.circuits import Budget, Circuit, Unit, choose, find_circuit
from affectlens.circuits.find import neutral_prompts
from affectlens.circuits.units import unit_sizes
from affectlens.core import ArtefactError, DataError, MismatchError, Provenance, UnknownNameError
from affectlens.core.artefact import read_tensors, write_tensors
from tests.circuits.helpers import EMOTIONS, WORDS, hooks, random_directions, small_corpus

IDS = torch.tensor([[5, 17, 33, 42, 8, 99, 120, 7, 66, 150, 31, 12], [*range(60, 72)]])


def random_circuit(model: Any, seed: int = 0) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    anatomy = model.anatomy
    e, n = len(EMOTIONS), anatomy.n_layers

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    neurons, heads = randn(e, n, anatomy.d_mlp), randn(e, n, anatomy.n_heads)
    counts = torch.stack([torch.full((e, n), 2), torch.full((e, n), 9)], dim=-1)
    counts[0, 1] = torch.tensor([0, 20])
    return Circuit(
        emotions=EMOTIONS,
        neurons=choose(neurons, counts[..., 1], EMOTIONS),
        heads=choose(heads, counts[..., 0], EMOTIONS),
        neuron_scores=neurons,
        head_scores=heads,
        delta_neurons=randn(e, n, anatomy.d_mlp),
        delta_heads=randn(e, n, anatomy.width("z")),
        allocation=counts,
        sizes=unit_sizes(anatomy),
        routed=torch.zeros(n, dtype=torch.long),
        influence=None,
        delta_source="group_mean",
        position="mean:reply",
        provenance=Provenance("circuit", model=model.fingerprint, model_name=model.name),
    )


def test_folded_equals_unfolded(each_model: Any) -> None:
    """Δ at the inputs of W_O and W_down, or constants at their outputs: the same logits."""
    circuit = random_circuit(each_model)
    attn, mlp = circuit.folded(each_model)
    anatomy = each_model.anatomy
    assert attn.shape == mlp.shape == (3, anatomy.n_layers, anatomy.d_model)
    e, strength = 1, 0.7
    d_head = anatomy.d_head
    inputs, outputs = [], []
    for part in anatomy.blocks:
        i = part.layer
        z, a = torch.zeros(anatomy.width("z")), torch.zeros(anatomy.d_mlp)
        for unit in circuit.units(EMOTIONS[e], "heads"):
            if unit.layer == i:
                own = slice(unit.index * d_head, (unit.index + 1) * d_head)
                z[own] = circuit.delta_heads[e, i, own]
        for unit in circuit.units(EMOTIONS[e], "neurons"):
            if unit.layer == i:
                a[unit.index] = circuit.delta_neurons[e, i, unit.index]
        inputs.append((part.o_proj, lambda x, d=z: x + strength * d, "in"))
        inputs.append((part.down_proj, lambda x, d=a: x + strength * d, "in"))
        outputs.append((part.o_proj, lambda x, d=attn[e, i]: x + strength * d, "out"))
        outputs.append((part.down_proj, lambda x, d=mlp[e, i]: x + strength * d, "out"))
    with torch.no_grad():
        plain = each_model.hf(IDS).logits
        with hooks(*inputs):
            unfolded = each_model.hf(IDS).logits
        with hooks(*outputs):
            folded = each_model.hf(IDS).logits
    torch.testing.assert_close(folded, unfolded, atol=1e-4, rtol=1e-4)
    assert float((unfolded - plain).abs().max()) > 0.1


def test_masks_hold_exactly_the_units(tiny_model: Any) -> None:
    model = tiny_model("qwen3")
    circuit = random_circuit(model)
    neurons, heads = circuit.masks()
    assert neurons.sum(-1).tolist() == circuit.allocation[..., 1].tolist()
    per_head = heads.unflatten(-1, (4, -1))
    assert torch.equal(per_head.any(-1), per_head.all(-1))
    assert per_head.any(-1).sum(-1).tolist() == circuit.allocation[..., 0].tolist()
    # The top of every sublayer, by score.
    top = circuit.neuron_scores[2, 0].topk(9).indices
    chosen = {u.index for u in circuit.units("happiness", "neurons") if u.layer == 0}
    assert set(top.tolist()) == chosen


def test_choose_is_deterministic_on_ties() -> None:
    chosen = choose(torch.zeros(1, 2, 5), torch.tensor([[2, 1]]), ("anger",))
    assert chosen["anger"] == (Unit(0, 0, 0.0), Unit(0, 1, 0.0), Unit(1, 0, 0.0))


def test_find_and_round_trip(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("gemma3")
    corpus, directions = small_corpus(), random_directions(model)
    budget = Budget(total=40, floor_neurons=1, floor_heads=1)
    prompts = [[5, 17, 33], [8, 99, 120, 7]]
    found = find_circuit(model, corpus, directions, budget=budget, prompts=prompts, words=WORDS)
    # 40 = 28 neurons + 12 heads; at most half of the model's 12 heads may be taken.
    assert found.allocation.sum(1).tolist() == [[6, 28]] * 3
    assert found.position == "mean:reply"
    assert found.delta_source == "group_mean"
    assert found.provenance.corpus == corpus.fingerprint
    torch.testing.assert_close(
        found.delta_neurons.sum(0), torch.zeros_like(found.delta_neurons[0]), atol=1e-5, rtol=0
    )
    path = tmp_path / "circuit.safetensors"
    found.save(path)
    again = Circuit.load(path)
    assert again.neurons == found.neurons
    assert again.heads == found.heads
    assert again.provenance.fingerprint == found.provenance.fingerprint
    for name in ("delta_neurons", "delta_heads", "neuron_scores", "head_scores", "allocation"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    assert again.influence is not None
    assert torch.equal(again.influence.chosen, found.influence.chosen)  # pyright: ignore
    for ours, theirs in zip(again.folded(model), found.folded(model), strict=True):
        assert torch.equal(ours, theirs)
    saved = read_tensors(path).extra["overlap"]["heads"]
    assert saved["expected"][0][1] == pytest.approx(found.overlap("heads").expected[0, 1])


def test_only_the_fitting_split_is_used(tiny_model: Any) -> None:
    from dataclasses import replace

    model, corpus = tiny_model("llama"), small_corpus()
    moved = tuple(replace(r, split="test" if r.group == "s1" else "fit") for r in corpus)
    options: Any = {"prompts": [[5, 17, 33]], "words": WORDS}
    directions = random_directions(model)
    found = find_circuit(model, replace(corpus, records=moved), directions, **options)
    kept = replace(corpus, records=tuple(r for r in corpus if r.group == "s0"))
    alone = find_circuit(model, kept, directions, **options)
    assert torch.equal(found.delta_heads, alone.delta_heads)
    everything = find_circuit(
        model, replace(corpus, records=moved), directions, split=None, **options
    )
    assert not torch.equal(found.delta_heads, everything.delta_heads)


def test_another_model_is_refused(tiny_model: Any) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    circuit = random_circuit(model)
    with pytest.raises(MismatchError, match="not for"):
        circuit.folded(other)
    forced, _ = circuit.folded(other, force=True)
    assert forced.shape == (3, 3, 32)
    with pytest.raises(MismatchError):
        find_circuit(other, small_corpus(), random_directions(model), prompts=[[5, 6]])


def test_replaced_delta_is_kept_apart(tiny_model: Any) -> None:
    circuit = random_circuit(tiny_model("llama"))
    new = circuit.with_delta(circuit.delta_neurons * 2, how="gradient")
    assert new.delta_source == "gradient"
    assert torch.equal(new.delta_neurons, circuit.delta_neurons * 2)
    assert torch.equal(new.delta_heads, circuit.delta_heads)
    assert new.neurons == circuit.neurons
    prints = {
        c.provenance.fingerprint
        for c in (circuit, new, circuit.with_delta(circuit.delta_neurons * 3, how="gradient"))
    }
    assert len(prints) == 3
    with pytest.raises(DataError, match="delta_heads"):
        circuit.with_delta(delta_heads=torch.zeros(3, 3, 8), how="x")
    with pytest.raises(DataError, match="delta_neurons"):
        circuit.with_delta(torch.zeros(3, 2, 64), how="x")
    with pytest.raises(DataError, match="NaN"):
        circuit.with_delta(torch.full((3, 3, 64), float("nan")), how="x")


def test_parts_and_controls(tiny_model: Any) -> None:
    model = tiny_model("llama")
    circuit = random_circuit(model)
    heads = circuit.only("heads")
    attn, mlp = heads.folded(model)
    assert torch.equal(attn, circuit.folded(model)[0])
    assert float(mlp.abs().max()) == 0
    control = circuit.randomised(seed=3)
    assert control.neurons == circuit.randomised(seed=3).neurons
    assert control.neurons != circuit.neurons
    mask, _ = control.masks()
    assert mask.sum(-1).tolist() == circuit.allocation[..., 1].tolist()
    unit = control.neurons["anger"][0]
    assert unit.score == pytest.approx(float(circuit.neuron_scores[0, unit.layer, unit.index]))
    with pytest.raises(UnknownNameError, match="heads"):
        circuit.only("layers")
    with pytest.raises(UnknownNameError, match="happiness"):
        circuit.units("boredom", "heads")
    assert circuit.units("joy", "heads") == circuit.heads["happiness"]
    rows = circuit.table(top=2)
    assert len(rows) == 3 * 2 * 2
    assert rows[0]["score"] >= rows[1]["score"]
    assert rows[0]["score"] == max(u.score for u in circuit.heads["anger"])


def test_damaged_files_are_refused(tiny_model: Any, tmp_path: Path) -> None:
    circuit = random_circuit(tiny_model("llama"))
    path = tmp_path / "c.safetensors"
    circuit.save(path)
    file = read_tensors(path)

    def rewrite(**changed: Tensor) -> None:
        write_tensors(path, {**file.tensors, **changed}, file.provenance, file.extra)

    rewrite(**{"heads.anger": torch.tensor([[0, 4]], dtype=torch.int32)})
    with pytest.raises(ArtefactError, match="does not have"):
        Circuit.load(path)
    rewrite(delta_heads=torch.full_like(circuit.delta_heads, float("inf")))
    with pytest.raises(ArtefactError, match="infinity"):
        Circuit.load(path)
    rewrite(delta_neurons=torch.zeros(3, 3, 63))
    with pytest.raises(ArtefactError, match="delta_neurons"):
        Circuit.load(path)
    del file.tensors["neurons.fear"]
    rewrite()
    with pytest.raises(ArtefactError, match="damaged"):
        Circuit.load(path)
    write_tensors(path, file.tensors, Provenance("directions"), file.extra)
    with pytest.raises(MismatchError, match="not a circuit"):
        Circuit.load(path)


def test_neutral_prompts_are_balanced(tiny_model: Any) -> None:
    from affectlens.datasets import load
    from affectlens.models.chat.chats import encode

    model = tiny_model("llama")
    prompts = neutral_prompts(model, 7)
    assert len(set(prompts)) == 7
    events = load("events").filter(split="fit")
    known = {encode(model.tokenizer, r.chat, add_generation_prompt=True).ids: r for r in events}
    valences = [known[p].valence for p in prompts]
    assert sorted(valences.count(v) for v in set(valences)) == [2, 2, 3]
    assert len({known[p].scenario for p in prompts}) == 7
