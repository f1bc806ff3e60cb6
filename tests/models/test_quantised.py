"""Models that are really quantised: what is read, summed, named and steered."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.circuits import find_circuit
from affectlens.core.places import Site
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings
from affectlens.models.hooking.hooks import reading
from affectlens.models.linear_map import is_quantised
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


def test_steering_equals_plain_hooks(quantised: Any) -> None:
    pack = random_pack(quantised)
    settings = GenerationSettings(max_new_tokens=4)
    steered = generate_steered(quantised, pack, PROMPTS, "anger=1.5", settings)
    alone = [generate_steered(quantised, pack, [p], "anger=1.5", settings)[0] for p in PROMPTS]
    assert steered == alone
