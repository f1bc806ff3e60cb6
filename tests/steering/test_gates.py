"""Gates against a slow oracle: one row, no cache, decisions taken token by token."""

from __future__ import annotations

from collections.abc import Mapping
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
from affectlens.models.generation.generation import GenerationSettings
from affectlens.models.loading import LanguageModel
from affectlens.probes import Sweep, sweep
from affectlens.probes.held_out import HeldOut
from affectlens.steering import SteeringPack, SteeringSpec, generate_steered
from affectlens.steering.gates import EMBEDDINGS, Gate, Readout, probabilities
from affectlens.steering.operators import OPERATORS
from affectlens.steering.spec import POSITIONS
from tests.steering.oracle import PROMPTS, random_pack, slow_generate

CLASSES = ("anger", "neutral", "joy")
SETTINGS = GenerationSettings(max_new_tokens=6)
BLOCKS = (EMBEDDINGS, 0, 1, 2)
ORDER = ("o_proj_out", "down_proj_out", "resid_post")


def readout(model: LanguageModel, layers: tuple[int, ...]) -> Readout:
    generator = torch.Generator().manual_seed(5)
    n = len(layers)
    weights = torch.randn(n, 3, model.d_model, generator=generator) * 0.03
    return Readout(CLASSES, layers, weights, torch.randn(n, 3, generator=generator) * 0.1)


def gated_pack(model: LanguageModel, layers: tuple[int, ...] = BLOCKS) -> SteeringPack:
    return replace(random_pack(model), gates=readout(model, layers))


def read_by(model: LanguageModel, pack: SteeringPack, row: list[int], layer: int) -> torch.Tensor:
    """The probe's probabilities of an unsteered text, ``[pos, label]``; of the embeddings too."""
    with torch.no_grad():
        states = model.hf(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
        hidden = states[layer + 1][0]
        if layer == 2:  # the last of them has been through the final norm
            seen: list[Any] = []
            handle = model.anatomy.blocks[2].block.register_forward_hook(
                lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out)
            )
            model.hf(input_ids=torch.tensor([row]))
            handle.remove()
            hidden = seen[0][0]
    assert pack.gates is not None
    at = pack.gates.layers.index(layer)
    return (hidden.float() @ pack.gates.weights[at].T + pack.gates.bias[at]).softmax(-1)


def slow_logits(
    model: LanguageModel,
    pack: SteeringPack,
    ids: list[int],
    spec: SteeringSpec,
    passes: Mapping[int, bool],
) -> torch.Tensor:
    """All positions, added by hand, token by token, everywhere that the mode writes."""
    handles = []
    for name, vectors in pack.vectors.items():
        mode, point = name.split(".")
        if mode != spec.mode:
            continue
        for i, layer in enumerate(pack.layers[name]):
            part = model.anatomy.blocks[layer]
            module = {
                "resid_post": part.block,
                "o_proj_out": part.o_proj,
                "down_proj_out": part.down_proj,
            }[point]
            delta = sum(w * vectors[pack.emotions.index(e), i] for e, w in spec.weights.items())

            def hook(_module: Any, _args: Any, output: Any, delta: Any = delta) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                tokens = hidden.view(-1, hidden.shape[-1])  # OPT's MLP has no batch axis
                for t, may in passes.items():
                    if may:
                        tokens[t] += delta
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            return model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


def steered(model: LanguageModel, pack: SteeringPack, row: list[int], spec: Any) -> torch.Tensor:
    with pack.steer(model, spec, prompt_lengths=[4]), torch.no_grad():
        return model.hf(input_ids=torch.tensor([row])).logits[0]


@pytest.mark.parametrize(
    ("mode", "emotion", "layer"),
    # The circuit writes within block 0; happiness in the residual only after block 2.
    [("circuit", "anger", EMBEDDINGS), ("residual", "anger", 0), ("residual", "happiness", 1)],
)
@pytest.mark.parametrize("asked", ["anger>", "joy<"])
def test_only_tokens_that_pass_are_steered(
    each_model: LanguageModel, mode: str, emotion: str, layer: int, asked: str
) -> None:
    pack, row = gated_pack(each_model, (EMBEDDINGS, 0, 1)), list(PROMPTS[2])
    shares = read_by(each_model, pack, row, layer)[:, CLASSES.index(asked[:-1])].tolist()
    middle = sorted(shares)[len(row) // 2 - 1 : len(row) // 2 + 1]
    gate = f"{asked}{sum(middle) / 2!r}"
    spec = SteeringSpec({emotion: 1.0}, mode=mode, positions="all", unit="natural", gate=gate)
    assert isinstance(spec.gate, Gate)
    found = {t: (p > spec.gate.threshold) == spec.gate.above for t, p in enumerate(shares)}
    wanted = slow_logits(each_model, pack, row, spec, found)
    got = steered(each_model, pack, row, spec)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    # The gate is open for some tokens and shut for others, so neither extreme is the answer.
    plain = each_model.hf(input_ids=torch.tensor([row])).logits[0]
    everywhere = steered(each_model, pack, row, replace(spec, gate=None, emotions=pack.emotions))
    assert not torch.allclose(got, plain, atol=1e-3)
    assert not torch.allclose(got, everywhere, atol=1e-3)


@pytest.mark.parametrize("layer", BLOCKS)
@pytest.mark.parametrize("mode", ["residual", "circuit"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_an_open_gate_is_no_gate_or_is_refused(
    tiny_model: Any, layer: int, mode: str, positions: str
) -> None:
    """With a probe at any depth; refused if and only if it reads after the first place."""
    model = tiny_model("llama")
    pack, row = gated_pack(model, (layer,)), list(PROMPTS[2])
    for weights in ("anger=1", "happiness=2", "anger=0.5,happiness=-1"):
        begins = min(
            (at, ORDER.index(name.split(".")[1]))
            for name, vectors in pack.vectors.items()
            for i, at in enumerate(pack.layers[name])
            for emotion in SteeringSpec.parse(weights).weights
            if name.startswith(mode) and vectors[pack.emotions.index(emotion), i].any()
        )
        for operator in OPERATORS if positions == "all" else ("add",):
            spec = f"{weights};mode={mode};positions={positions};operator={operator}"
            gated = f"{spec};gate=anger>0.000001"
            if (layer, ORDER.index("resid_post")) <= begins:
                free = steered(model, pack, row, spec)
                assert torch.equal(steered(model, pack, row, gated), free)
                assert not torch.allclose(free, steered(model, pack, row, None), atol=1e-3)
                continue
            place = rf"block {begins[0]} \({ORDER[begins[1]]}\)"
            told = f"after block {layer}, but this request steers from {place}"
            with pytest.raises(DataError, match=told):
                pack.resolve(gated)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_an_open_gate_generates_what_no_gate_generates(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    pack = gated_pack(model)
    for mode in ("residual", "circuit"):
        spec = f"anger=1;mode={mode};positions=last_prompt+generated"
        prompts = [list(p) for p in PROMPTS]
        free = generate_steered(model, pack, prompts, spec, SETTINGS)
        gated = f"{spec};gate=anger>0.000001"
        assert generate_steered(model, pack, prompts, gated, SETTINGS) == free


def test_probes_to_read_by_decide_where_there_are_no_others(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack, row = random_pack(model), list(PROMPTS[2])
    reading = replace(pack, readout=readout(model, (0, 2)))
    free = steered(model, pack, row, "anger=1")
    assert torch.equal(steered(model, reading, row, "anger=1;gate=joy<0.999999"), free)
    late = replace(pack, readout=readout(model, (2,)))
    with pytest.raises(DataError, match=r"after block 2, but .* block 0 \(resid_post\)"):
        late.resolve("anger=1;gate=joy<0.999999")
    both = replace(late, gates=readout(model, (EMBEDDINGS,)))
    assert torch.equal(steered(model, both, row, "anger=1;gate=joy<0.999999"), free)


def test_gated_and_other_requests_share_a_batch(tiny_model: Any) -> None:
    """Three different probes decide, one of them before anything else happens."""
    model = tiny_model("llama")
    pack = gated_pack(model)
    requests: list[Any] = [
        "anger=1;unit=natural;positions=all;gate=anger>0.3",
        "anger=1;unit=natural;positions=all",
        None,
        "fear=2;mode=circuit;unit=natural;positions=all;gate=neutral<0.4",
        "happiness=2;unit=natural;positions=all;gate=joy>0.3",
    ]
    assert [table.layer for table in pack.table(requests).gates] == [EMBEDDINGS, 0, 2]
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
    sites = (Site(0, "resid_pre"), *(Site(layer, "resid_post") for layer in range(3)))
    arrays = {
        site: torch.randn(n, model.d_model, generator=generator)
        + torch.tensor([[float(i % 3)] for i in range(n)])
        for site in sites
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
    for layers, gates in ((7, None), (-1, None), (None, 7)):
        with pytest.raises(UnknownNameError, match=f"probe layer '{layers or gates}'"):
            pack.with_readout(probes, layers, gates=gates)
    other = replace(probes, provenance=replace(probes.provenance, model="other"))
    with pytest.raises(MismatchError):
        pack.with_readout(other, 1)
    # A file whose probes do not fit its facts is refused.
    file = read_tensors(tmp_path / "p.safetensors", "pack")
    facts = {**file.extra, "readout": {**file.extra["readout"], "layers": [0]}}
    write_tensors(tmp_path / "q.safetensors", file.tensors, file.provenance, facts)
    with pytest.raises(ArtefactError, match="probes have shapes"):
        SteeringPack.load(tmp_path / "q.safetensors")


def test_gates_are_decided_by_the_best_probe_before_what_they_steer(
    tiny_model: Any, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    pack = random_pack(model)
    sites = (Site(0, "resid_pre"), *(Site(layer, "resid_post") for layer in range(3)))
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.4], [0.7, 0.5], [0.3, 0.6]])

    def sweep_of(keep: tuple[int, ...]) -> Sweep:
        generator = torch.Generator().manual_seed(0)
        n, rows = len(keep), list(keep)
        return Sweep(
            tuple(sites[i] for i in keep), CLASSES, scores[rows, 0], torch.zeros(n, 2),
            scores[rows], (1.0,) * n, (1.0, 2.0), 5, "test split", {"fit": 1, "held_out": 1}, 0.3,
            torch.randn(n, 3, model.d_model, generator=generator),
            torch.randn(n, 3, generator=generator),
            Provenance("sweep", model=model.fingerprint),
            HeldOut(("one",), ("group",), torch.tensor([0]), torch.zeros(n, 1, 3), CLASSES),
        )  # fmt: skip

    whole = sweep_of((0, 1, 2, 3))
    made = pack.with_readout(whole)
    # Circuit: only the embeddings come before block 0. Anger in the residual begins after block 0,
    # happiness after block 2, and of the blocks up to there the second reads best.
    assert made.readout is not None and made.readout.layers == (1,)
    assert made.gates is not None and made.gates.layers == (EMBEDDINGS, 0, 1)
    assert torch.equal(made.gates.weights, whole.weights[:3])
    assert made.gates.facts()["hooks"][:2] == [
        "blocks.0.hook_resid_pre",
        "blocks.0.hook_resid_post",
    ]
    for spec, layer in (
        ("anger=1;mode=circuit", EMBEDDINGS),
        ("anger=1,happiness=1", 0),
        ("happiness=1", 1),
    ):
        decides = made.decider(made.resolve(f"{spec};gate=joy>0.5"))
        assert made.gates.layers[decides] == layer
    made.save(tmp_path / "p.safetensors")
    again = SteeringPack.load(tmp_path / "p.safetensors", model)
    assert again.gates is not None and again.fingerprint == made.fingerprint
    assert torch.equal(again.gates.bias, made.gates.bias)
    # Chosen by hand, and without probes that read early enough.
    assert pack.with_readout(whole, gates=[2, -1]).gates.layers == (EMBEDDINGS, 2)  # type: ignore[union-attr]
    late = pack.with_readout(sweep_of((2, 3)))
    assert late.gates is not None and late.gates.layers == (1,)
    late.resolve("happiness=1;gate=joy>0.5")
    for spec, place in (("anger=1;mode=circuit", "down_proj_out"), ("anger=1", "resid_post")):
        with pytest.raises(DataError, match=rf"after block 1, .* from block 0 \({place}\)"):
            late.resolve(f"{spec};gate=joy>0.5")
    # What decides and what reads must be the same probe at the same place.
    assert late.gates is not None
    other = replace(late.gates, bias=late.gates.bias + 1)
    with pytest.raises(DataError, match="different probes of block 1"):
        replace(late, gates=other)
    with pytest.raises(DataError, match="from the same probes"):
        replace(late, gates=replace(late.gates, classes=("a", "b", "c")))


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
