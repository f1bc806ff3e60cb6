"""Gates against a slow oracle: one row, no cache, decisions taken token by token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from affectlens.activations import ActivationStore
from affectlens.core import (
    ArtefactError,
    DataError,
    MismatchError,
    Provenance,
    Site,
    UnknownNameError,
)
from affectlens.core.artefact import read_tensors, write_tensors
from affectlens.models.generation import GenerationSettings
from affectlens.models.loading import LanguageModel
from affectlens.probes import sweep
from affectlens.steering import SteeringPack, SteeringSpec, generate_steered
from affectlens.steering.gates import Gate, Readout, probabilities
from tests.steering.oracle import PROMPTS, random_pack, slow_generate

LAYER = 1
CLASSES = ("anger", "neutral", "joy")
SETTINGS = GenerationSettings(max_new_tokens=6)


def gated_pack(model: LanguageModel) -> SteeringPack:
    generator = torch.Generator().manual_seed(5)
    readout = Readout(
        CLASSES,
        (LAYER,),
        torch.randn(1, 3, model.d_model, generator=generator) * 0.03,
        torch.randn(1, 3, generator=generator) * 0.1,
    )
    return replace(random_pack(model), readout=readout)


def median_share(model: LanguageModel, pack: SteeringPack, row: list[int], label: str) -> float:
    """Of the probe's probabilities over the tokens, so that a gate there lets half pass."""
    with torch.no_grad():
        states = model.hf(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
    assert pack.readout is not None
    scores = states[LAYER + 1][0] @ pack.readout.weights[0].T + pack.readout.bias[0]
    shares = scores.softmax(-1)[:, CLASSES.index(label)].sort().values
    return float(shares[len(row) // 2 - 1 : len(row) // 2 + 1].mean())


def slow_logits(
    model: LanguageModel, pack: SteeringPack, ids: list[int], spec: SteeringSpec
) -> torch.Tensor:
    """All positions, decided by a pass of its own per layer, added by hand."""
    readout = pack.readout
    assert readout is not None and isinstance(spec.gate, Gate)
    label = CLASSES.index(spec.gate.label)
    open_: dict[int, bool] = {}
    block = model.anatomy.blocks[LAYER].block

    def decide(_module: Any, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        for t in range(hidden.shape[1]):
            scores = readout.weights[0] @ hidden[0, t].float() + readout.bias[0]
            share = float(torch.exp(scores[label]) / torch.exp(scores).sum())
            assert isinstance(spec.gate, Gate)
            open_[t] = (share > spec.gate.threshold) == spec.gate.above

    handle = block.register_forward_hook(decide)
    with torch.no_grad():
        model.hf(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()

    handles = []
    for name, vectors in pack.vectors.items():
        mode, point = name.split(".")
        if mode != spec.mode:
            continue
        for i, layer in enumerate(pack.layers[name]):
            if layer < LAYER or (layer == LAYER and point != "resid_post"):
                continue
            part = model.anatomy.blocks[layer]
            module = {
                "resid_post": part.block,
                "o_proj_out": part.o_proj,
                "down_proj_out": part.down_proj,
            }[point]
            delta = sum(w * vectors[pack.emotions.index(e), i] for e, w in spec.weights.items())

            def hook(_module: Any, _args: Any, output: Any, delta: Any = delta) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                for t, may in open_.items():
                    if may:
                        hidden[0, t] += delta
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("mode", ["residual", "circuit"])
@pytest.mark.parametrize("asked", ["anger>", "joy<"])
def test_only_tokens_that_pass_are_steered(
    each_model: LanguageModel, mode: str, asked: str
) -> None:
    pack, row = gated_pack(each_model), list(PROMPTS[2])
    gate = f"{asked}{median_share(each_model, pack, row, asked[:-1])!r}"
    spec = SteeringSpec({"anger": 1.0}, mode=mode, positions="all", unit="natural", gate=gate)
    plain = each_model.hf(input_ids=torch.tensor([row])).logits[0]
    wanted = slow_logits(each_model, pack, row, spec)
    with pack.steer(each_model, spec), torch.no_grad():
        got = each_model.hf(input_ids=torch.tensor([row])).logits[0]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    always = replace(spec, gate=None, emotions=pack.emotions)
    with pack.steer(each_model, always), torch.no_grad():
        everywhere = each_model.hf(input_ids=torch.tensor([row])).logits[0]
    # The gate is open for some tokens and shut for others, so neither extreme is the answer.
    assert not torch.allclose(got, plain, atol=1e-3)
    assert not torch.allclose(got, everywhere, atol=1e-3)


def test_gated_and_other_requests_share_a_batch(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = gated_pack(model)
    requests: list[Any] = [
        "anger=1;unit=natural;positions=all;gate=anger>0.3",
        "anger=1;unit=natural;positions=all",
        None,
        "fear=2;mode=circuit;unit=natural;positions=all;gate=neutral<0.4",
    ]
    prompts = [list(PROMPTS[2])] * len(requests)
    together = generate_steered(model, pack, prompts, requests, SETTINGS)
    alone = [
        generate_steered(model, pack, [p], [r], SETTINGS)[0]
        for p, r in zip(prompts, requests, strict=True)
    ]
    assert together == alone
    weights = {"anger": 1.0}
    assert together[1] == slow_generate(model, pack, prompts[1], weights, "residual", "all", new=6)


def test_probabilities_are_those_of_sklearn() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, generator=generator)
    y = (x[:, :3] + 0.3 * torch.randn(200, 3, generator=generator)).argmax(1)
    fitted = LogisticRegression().fit(x.numpy(), y.numpy())
    found = probabilities(
        x, torch.tensor(fitted.coef_).float(), torch.tensor(fitted.intercept_).float()
    )
    wanted = torch.tensor(fitted.predict_proba(x.numpy())).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_from_a_sweep_and_back_from_a_file(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    generator = torch.Generator().manual_seed(1)
    n = 60
    emotions = [("anger", "fear", "neutral")[i % 3] for i in range(n)]
    arrays = {
        Site(layer, "resid_post"): torch.randn(n, model.d_model, generator=generator)
        + torch.tensor([[float(i % 3)] for i in range(n)])
        for layer in range(3)
    }
    labels = {"emotion": emotions, "group": [f"g{i // 3}" for i in range(n)]}
    store = ActivationStore.of(
        arrays, labels, provenance=Provenance("activations", model=model.fingerprint)
    )
    probes = sweep(store, folds=3, draws=10)
    pack = random_pack(model).with_readout(probes, [2, 0])
    assert pack.readout is not None and pack.readout.layers == (0, 2)
    x = arrays[Site(2, "resid_post")]
    torch.testing.assert_close(
        probabilities(x, pack.readout.weights[1], pack.readout.bias[1]),
        probes.logits(x, Site(2, "resid_post")).softmax(-1).float(),
    )
    assert pack.fingerprint != random_pack(model).fingerprint
    pack.save(tmp_path / "p.safetensors")
    again = SteeringPack.load(tmp_path / "p.safetensors", model)
    assert again.readout is not None
    assert torch.equal(again.readout.weights, pack.readout.weights)
    assert again.fingerprint == pack.fingerprint
    with pytest.raises(UnknownNameError, match="probe layer '7'"):
        pack.with_readout(probes, 7)
    other = replace(probes, provenance=replace(probes.provenance, model="other"))
    with pytest.raises(MismatchError):
        pack.with_readout(other, 1)
    # A file whose probes do not fit its facts is refused.
    file = read_tensors(tmp_path / "p.safetensors", "pack")
    facts = {**file.extra, "readout": {**file.extra["readout"], "layers": [0]}}
    write_tensors(tmp_path / "q.safetensors", file.tensors, file.provenance, facts)
    with pytest.raises(ArtefactError, match="probes have shapes"):
        SteeringPack.load(tmp_path / "q.safetensors")


@pytest.mark.parametrize("text", ["anger", "anger>", ">0.5", "anger>1", "anger>nan", "a>0.2<0.3"])
def test_gates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="Cannot read the gate"):
        SteeringSpec.parse({"anger": 1, "gate": text})


def test_gates_are_part_of_the_spec(tiny_model: Any) -> None:
    spec = SteeringSpec.parse("anger=1;gate= sadness > 0.40")
    assert spec.gate == Gate("sadness", True, 0.4)
    assert str(spec) == "anger=1;gate=sadness>0.4"
    assert SteeringSpec.parse(str(spec)) == spec == SteeringSpec.parse(spec.to_dict())
    assert spec != SteeringSpec.parse("anger=1")
    assert SteeringSpec.parse({"anger": 0, "gate": "sadness>0.4"}) == SteeringSpec()
    with pytest.raises(DataError, match="holds no probes"):
        random_pack(tiny_model("llama")).resolve("anger=1;gate=anger>0.4")
    with pytest.raises(UnknownNameError, match="gate emotion 'sadness'"):
        gated_pack(tiny_model("llama")).resolve(spec)
