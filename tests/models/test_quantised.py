"""Models that are really quantised: what is read, summed, named and steered."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.circuits import find_circuit
from affectlens.core.errors import DataError, ModelError, UnknownNameError
from affectlens.core.places import Site
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings
from affectlens.models.hooking.hooks import reading
from affectlens.models.linear_map import is_quantised
from affectlens.pipeline import RunConfig
from affectlens.steering import generate_steered
from tests.circuits.helpers import WORDS, random_directions, small_corpus
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.steering.oracle import PROMPTS, random_pack

ao = pytest.importorskip("torchao.quantization")

IDS = torch.tensor([[5, 9, 17, 30, 8]])
NAMES = ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("whole")
    tiny_hf("llama").save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return where


@pytest.fixture(scope="module", params=NAMES)
def quantised(request: pytest.FixtureRequest, folder: Path) -> Generator[Any, None, None]:
    from transformers import TorchAoConfig

    config = TorchAoConfig(getattr(ao, request.param)())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield load_model(folder, dtype="float32", device="cpu", quantization_config=config)


def test_what_is_read_is_what_the_model_computes(quantised: Any) -> None:
    assert is_quantised(quantised.hf.model.layers[0].mlp.down_proj)
    modules = {part.layer: part.down_proj for part in quantised.anatomy.blocks}
    wanted: dict[int, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _m, args, _o, i=i: wanted.update({i: args[0].clone()}))
        for i, module in modules.items()
    ]
    with torch.no_grad():
        quantised.hf(input_ids=IDS)
    for handle in handles:
        handle.remove()
    sites = [Site(i, "mlp_post") for i in modules]
    with torch.no_grad(), reading(quantised.anatomy, sites, lambda s, v: seen.update({s: v})):
        seen: dict[Site, torch.Tensor] = {}
        quantised.anatomy.base(input_ids=IDS)
    for i, value in wanted.items():
        assert torch.equal(seen[Site(i, "mlp_post")], value)


def test_every_unit_is_there_and_a_circuit_is_found(quantised: Any) -> None:
    circuit = find_circuit(
        quantised,
        small_corpus(),
        random_directions(quantised),
        split=None,
        prompts=[PROMPTS[0]],
        words=WORDS,
    )
    attn, mlp = circuit.folded(quantised)
    part = quantised.anatomy.blocks[1]
    neurons, _ = circuit.masks()
    delta = (circuit.delta_neurons * neurons)[:, 1]
    weight = part.down_proj.weight.dequantize().detach()
    # Where what comes in is rounded to 8 bits, so is the identity: to 0.4 %.
    torch.testing.assert_close(mlp[:, 1], delta @ weight.T, atol=1e-3, rtol=1e-2)
    assert bool(attn.isfinite().all())


def test_a_fingerprint_knows_codes_and_scales(quantised: Any, folder: Path) -> None:
    plain = load_model(folder, dtype="float32", device="cpu")
    name = quantised.fingerprint
    assert name != plain.fingerprint
    scale = quantised.hf.model.layers[2].mlp.down_proj.weight.scale
    with torch.no_grad():
        scale.mul_(2)
    try:
        assert quantised.fingerprint != name
    finally:
        with torch.no_grad():
            scale.div_(2)
    assert quantised.fingerprint == name


def test_a_fingerprint_is_had_in_inference_mode(quantised: Any) -> None:
    with torch.inference_mode():
        again = load_model(quantised.hf, tokenizer=quantised.tokenizer).fingerprint
    assert again == quantised.fingerprint


def test_steering_equals_plain_hooks(quantised: Any) -> None:
    pack = random_pack(quantised)
    settings = GenerationSettings(max_new_tokens=4)
    steered = generate_steered(quantised, pack, PROMPTS, "anger=1.5", settings)
    alone = [generate_steered(quantised, pack, [p], "anger=1.5", settings)[0] for p in PROMPTS]
    assert steered == alone


def test_quantisers_go_by_name(folder: Path) -> None:
    place: dict[str, Any] = {"dtype": "float32", "device": "cpu"}
    plain = load_model(folder, **place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eight, four = (load_model(folder, quantization_config=n, **place) for n in ("int8", "int4"))
    names = {plain.fingerprint, eight.fingerprint, four.fingerprint}
    assert len(names) == 3
    for model, values, width in ((eight, 256, 64), (four, 16, 32)):
        for was, part in zip(plain.anatomy.blocks, model.anatomy.blocks, strict=True):
            assert is_quantised(part.down_proj) and part.level == "units"
            # One scale for so many inputs of an output, and no more values than there are codes.
            given = was.W_down().T.unflatten(1, (-1, width))
            found = part.W_down().T.unflatten(1, (-1, width))
            step = given.abs().amax(-1, keepdim=True) / (values / 2 - 1)
            assert bool(((found - given).abs() <= step).all())
            assert max(len(set(row.tolist())) for row in found.flatten(0, 1)) <= values


def test_what_a_quantiser_lacks_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown quantiser 'int5'.*int[48]"):
        load_model(folder, quantization_config="int5")
    monkeypatch.setattr("affectlens.models.quantisers.find_spec", lambda _name: None)
    with pytest.raises(ModelError, match="needs bitsandbytes: pip install bitsandbytes"):
        load_model(folder, quantization_config="bnb4")


def test_a_run_takes_them_but_for_vllm() -> None:
    assert RunConfig.checked(quantize="int8", device_map="auto").quantize == "int8"
    with pytest.raises(DataError, match="in its own way"):
        RunConfig.checked(quantize="int8", backend="vllm")
    with pytest.raises(DataError, match="not both"):
        RunConfig.checked(device_map="auto", device="cpu")
