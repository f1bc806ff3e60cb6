"""Models with adapters of PEFT inside, against the same models with the adapters merged."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.core.errors import ModelError
from affectlens.core.places import Site
from affectlens.models import describe, load_model
from affectlens.models.adapters import active_adapters
from affectlens.models.hooking.hooks import reading
from tests.conftest import tiny_hf, tiny_tokenizer

peft = pytest.importorskip("peft")

IDS = torch.tensor([[5, 9, 17, 30, 8]])
TARGETS = ["q_proj", "o_proj", "down_proj"]


def wrapped(seed: int = 0, **options: Any) -> Any:
    """A tiny model with a LoRA that changes what it says."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False, **options
    )
    return peft.get_peft_model(tiny_hf("llama"), config).eval()


def load(model: Any) -> Any:
    return load_model(model, tokenizer=tiny_tokenizer())


def seen(model: Any) -> dict[Site, torch.Tensor]:
    kinds = ("resid_mid", "resid_post", "z", "mlp_post", "attn_out", "mlp_out")
    sites = [Site(layer, kind) for layer in range(3) for kind in kinds]
    found: dict[Site, torch.Tensor] = {}
    with torch.no_grad(), reading(model.anatomy, sites, lambda s, v: found.update({s: v.clone()})):
        model.anatomy.base(input_ids=IDS)
    return found


def test_an_adapter_acts_and_is_part_of_every_number() -> None:
    source = wrapped()
    model, merged = load(source), load(copy.deepcopy(source).merge_and_unload())
    assert active_adapters(model.hf) == ("default",)
    for site, value in seen(model).items():
        torch.testing.assert_close(value, seen(merged)[site], atol=2e-5, rtol=1e-4, msg=str(site))
    with torch.no_grad():
        torch.testing.assert_close(model.hf(IDS).logits, source(IDS).logits)
    for ours, theirs in zip(model.anatomy.blocks, merged.anatomy.blocks, strict=True):
        torch.testing.assert_close(ours.W_O(), theirs.W_O(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.W_down(), theirs.W_down(), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.b_O(), theirs.b_O())


def test_a_fingerprint_names_what_acts() -> None:
    plain = load(tiny_hf("llama")).fingerprint
    source = wrapped()
    model = load(source)
    with_it = model.fingerprint
    assert with_it not in (plain, load(wrapped(seed=1)).fingerprint)
    assert with_it == load(wrapped()).fingerprint
    with source.disable_adapter():
        assert active_adapters(model.hf) == ()
        assert model.fingerprint == plain
        for site, value in seen(model).items():
            assert torch.equal(value, seen(load(tiny_hf("llama")))[site]), site
    assert model.fingerprint == with_it
    layer = model.anatomy.blocks[0].o_proj
    scale = layer.scaling["default"]
    layer.scaling["default"] = 3.0
    assert model.fingerprint != with_it
    layer.scaling["default"] = scale
    source.add_adapter("second", peft.LoraConfig(r=2, target_modules=TARGETS))
    assert model.fingerprint == with_it  # it does not act
    source.set_adapter("second")
    assert active_adapters(model.hf) == ("second",)
    assert model.fingerprint not in (plain, with_it)
    source.set_adapter("default")
    source.merge_adapter()
    assert active_adapters(model.hf) == ()
    assert model.fingerprint == load(copy.deepcopy(source).unload()).fingerprint != plain


def test_whole_modules_that_an_adapter_replaces() -> None:
    source = wrapped(modules_to_save=["lm_head"])
    with torch.no_grad():
        source.base_model.model.lm_head.modules_to_save["default"].weight.add_(0.1)
    model, plain = load(source), load(tiny_hf("llama"))
    torch.testing.assert_close(
        model.anatomy.unembed.weight, plain.anatomy.unembed.weight + 0.1, check_stride=False
    )
    with_it = model.fingerprint
    with torch.no_grad():
        source.base_model.model.lm_head.modules_to_save["default"].weight.add_(0.1)
    assert model.fingerprint != with_it
    with source.disable_adapter():
        assert model.fingerprint == plain.fingerprint


def test_a_folder_with_an_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, folder = tmp_path / "base", tmp_path / "adapter"
    source = wrapped()
    tiny_hf("llama").save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    source.peft_config["default"].base_model_name_or_path = str(base)
    source.save_pretrained(folder)
    model = load_model(folder, dtype="float32", device="cpu")
    assert model.fingerprint == load(source).fingerprint
    assert model.name == str(folder)
    about = describe(str(folder))
    assert (about["kind"], about["base"], about["n_layers"]) == ("adapter", str(base), 3)
    (base / "config.json").unlink()
    with pytest.raises(ModelError, match=r"base is not a model folder"):
        load_model(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "no-such-model"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="an adapter for no-such-model, which is not here"):
        load_model(folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="is cut short"):
        load_model(folder)


def test_learnt_tokens_before_a_prompt_are_refused() -> None:
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(ModelError, match=r"learnt tokens before every prompt \(PROMPT_TUNING\)"):
        load(peft.get_peft_model(tiny_hf("llama"), config))


def test_steering_goes_through_the_wrapper() -> None:
    from affectlens.core.places import WritePoint
    from affectlens.models.hooking.hooks import writing

    source = wrapped()
    model = load(source)
    change = torch.full((32,), 2.0)
    writers = {WritePoint(1, "resid_post"): lambda value: value + change}
    with torch.no_grad():
        before = source(input_ids=IDS).logits
        with writing(model.anatomy, writers):
            steered = source(input_ids=IDS).logits
        handle = source.base_model.model.model.layers[1].register_forward_hook(
            lambda _m, _a, out: out + change
        )
        wanted = source(input_ids=IDS).logits
        handle.remove()
    torch.testing.assert_close(steered, wanted)
    assert not torch.allclose(steered, before)
