"""Finding the parts of a model, and refusing models whose parts are elsewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as tf

from affectlens.core.errors import ModelError, UnknownNameError
from affectlens.core.places import Site
from affectlens.models.anatomy.anatomy import Term, find_anatomy
from affectlens.models.anatomy.selfcheck import check_anatomy
from affectlens.models.hooking.hooks import reading
from affectlens.models.loading import load_model
from tests.conftest import (
    D_MLP,
    D_MODEL,
    FAMILIES,
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    tiny_hf,
    tiny_tokenizer,
)

IDS = torch.tensor([[5, 17, 33, 42, 8, 99]])
SMALL: dict[str, Any] = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_and_shapes(family: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    anatomy = model.anatomy
    d_head = {"qwen3": 12, "gemma3": 16}.get(family, D_MODEL // N_HEADS)
    kv = N_HEADS if family in ("gpt2", "gpt_neox", "opt") else N_KV_HEADS
    assert (anatomy.n_layers, anatomy.d_model, anatomy.d_mlp) == (N_LAYERS, D_MODEL, D_MLP)
    assert (anatomy.n_heads, anatomy.n_kv_heads, anatomy.d_head) == (N_HEADS, kv, d_head)
    assert anatomy.family == type(model.hf).__name__
    assert anatomy.has_resid_mid == (family != "gpt_neox")
    called = model.hf.model.decoder if family == "opt" else model.hf.base_model
    assert anatomy.base is called and anatomy.model is model.hf
    assert all(part.flat == (family == "opt") for part in anatomy.blocks)
    assert anatomy.unembed is model.hf.get_output_embeddings()
    for layer, part in enumerate(anatomy.blocks):
        assert part.layer == layer
        assert part.W_O().shape == (N_HEADS, d_head, D_MODEL)
        assert part.W_down().shape == (D_MLP, D_MODEL)
        assert (part.attn_post_norm is not None) == (family in ("gemma3", "olmo2"))
        assert (part.mlp_post_norm is not None) == (family in ("gemma3", "olmo2"))
        biased = family in ("llama", "gpt2", "gpt_neox", "opt")
        assert (part.b_O() is not None) == (part.b_down() is not None) == biased
    assert {kind: anatomy.width(kind) for kind in ("z", "mlp_post", "resid_mid")} == {
        "z": N_HEADS * d_head,
        "mlp_post": D_MLP,
        "resid_mid": D_MODEL,
    }
    with pytest.raises(UnknownNameError, match="mlp_post"):
        anatomy.width("mlp")


@torch.no_grad()
def test_heads_and_neurons_sum_to_the_sublayers(each_model: Any) -> None:
    """Σ_h z[h]·W_O[h] + b_O = attention output, before a post-norm; the same for neurons."""
    seen: dict[Any, Any] = {}
    sites = [Site(1, "z"), Site(1, "mlp_post")]
    part = each_model.anatomy.blocks[1]
    handles = [
        module.register_forward_hook(lambda _m, _a, out, name=name: seen.update({name: out}))
        for name, module in (("o", part.o_proj), ("down", part.down_proj))
    ]
    with reading(each_model.anatomy, sites, lambda site, value: seen.update({site.kind: value})):
        each_model.anatomy.base(input_ids=IDS)
    for handle in handles:
        handle.remove()
    assert seen["mlp_post"].shape[:2] == IDS.shape
    seen["down"] = seen["down"].reshape(*IDS.shape, -1)  # OPT has no batch axis there
    heads = seen["z"].unflatten(-1, (N_HEADS, -1))
    attention = torch.einsum("bthd,hdm->bthm", heads, part.W_O()).sum(2)
    neurons = seen["mlp_post"] @ part.W_down()
    for value, bias, wanted in (
        (attention, part.b_O(), seen["o"]),
        (neurons, part.b_down(), seen["down"]),
    ):
        torch.testing.assert_close(value + (0 if bias is None else bias), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_looking_changes_nothing(family: str) -> None:
    hf = tiny_hf(family)
    modules = {name: (id(module), type(module)) for name, module in hf.named_modules()}
    forwards = [module.forward.__func__ for module in hf.modules()]  # type: ignore[attr-defined]
    weights = {name: value.clone() for name, value in hf.state_dict().items()}
    config = hf.config.to_dict()
    logits = hf(input_ids=IDS).logits
    check_anatomy(hf, find_anatomy(hf))
    assert modules == {name: (id(m), type(m)) for name, m in hf.named_modules()}
    assert forwards == [module.forward.__func__ for module in hf.modules()]  # type: ignore[attr-defined]
    assert hf.config._attn_implementation == "sdpa"
    assert hf.config.to_dict() == config
    assert all(torch.equal(value, weights[name]) for name, value in hf.state_dict().items())
    assert torch.equal(hf(input_ids=IDS).logits, logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())


def test_a_subclass_of_a_known_family_is_known() -> None:
    class MyLlama(tf.LlamaForCausalLM):
        pass

    assert find_anatomy(MyLlama(tiny_hf("llama").config)).family == "LlamaForCausalLM"


def test_works_without_weights_in_memory() -> None:
    config = tiny_hf("qwen3").config
    with torch.device("meta"):
        hf = tf.Qwen3ForCausalLM(config)
    assert find_anatomy(hf).d_mlp == D_MLP


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("BioGpt", {}, "no adapter for the architecture BioGptForCausalLM"),
        ("Mixtral", {"num_key_value_heads": 2}, "MixtralForCausalLM has no single dense MLP"),
        ("Granite", {"residual_multiplier": 0.3}, "GraniteForCausalLM scales"),
    ],
)
def test_families_it_cannot_take_apart_are_refused_by_name(
    name: str, changes: dict[str, Any], match: str
) -> None:
    hf = getattr(tf, f"{name}ForCausalLM")(getattr(tf, f"{name}Config")(**{**SMALL, **changes}))
    with pytest.raises(ModelError, match=match):
        find_anatomy(hf)


def test_a_module_that_is_not_where_it_should_be_is_named() -> None:
    hf = tiny_hf("llama")
    hf.model.layers[1].mlp.out_proj = hf.model.layers[1].mlp.down_proj
    del hf.model.layers[1].mlp.down_proj
    with pytest.raises(ModelError, match=r"LlamaForCausalLM block 1.*mlp\.down_proj"):
        find_anatomy(hf)


def test_a_projection_of_another_shape_is_named() -> None:
    hf = tiny_hf("llama")
    hf.model.layers[2].self_attn.o_proj = torch.nn.Linear(24, D_MODEL)
    with pytest.raises(ModelError, match="o_proj of block 2 maps 24 to 32 values, not 32 to 32"):
        find_anatomy(hf)


def test_a_wrong_reading_of_a_post_norm_is_noticed(tiny_model: Any) -> None:
    model = tiny_model("gemma3")
    wrong = tuple(
        replace(
            part,
            post_sum=(*part.post_sum[:-1], Term(part.down_proj)),
            mlp_adds=(Term(part.down_proj),),
        )
        for part in model.anatomy.blocks
    )
    with pytest.raises(ModelError, match="block 0 does not add up"):
        check_anatomy(model.hf, replace(model.anatomy, blocks=wrong))


def test_opt_with_norms_after_the_addition_keeps_what_reaches_its_stream() -> None:
    hf = tiny_hf("opt", do_layer_norm_before=False, _remove_final_layer_norm=True)
    anatomy = load_model(hf, tokenizer=tiny_tokenizer()).anatomy
    assert anatomy.known_by == "a traced pass"
    for part in anatomy.blocks:
        assert part.o_proj is part.block.self_attn.out_proj  # added before the first norm
        assert part.down_proj is None
        assert part.lacks["down_proj"] == "what its Linear adds is normed together with the stream"


def test_a_wrong_middle_is_noticed(tiny_model: Any) -> None:
    model = tiny_model("gemma3")
    wrong = tuple(replace(part, mid_reader=part.mlp) for part in model.anatomy.blocks)
    with pytest.raises(ModelError, match="middle of block 0"):
        check_anatomy(model.hf, replace(model.anatomy, blocks=wrong))


class Adapted(torch.nn.Linear):
    """A linear layer with an adapter of rank 8 beside its weight, bent or straight."""

    def __init__(self, plain: Any, *, bent: bool) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=plain.bias is not None)
        self.load_state_dict(plain.state_dict())
        self.to(plain.weight.dtype)
        generator = torch.Generator().manual_seed(0)
        self.down = torch.randn(plain.in_features, 8, generator=generator)
        self.up = torch.randn(8, plain.out_features, generator=generator) * 0.01
        self.bend = torch.nn.ReLU() if bent else torch.nn.Identity()

    def forward(self, value: Any) -> Any:
        low = self.bend(value.float() @ self.down)
        return super().forward(value) + (low @ self.up).to(value.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("sublayer", "name", "match"),
    [
        ("self_attn", "o_proj", "the heads do not add up to the output of its attention.*Adapted"),
        ("mlp", "down_proj", "the neurons do not add up to the output of its MLP.*Adapted"),
    ],
)
def test_an_adapter_is_part_of_a_projection_unless_it_is_bent(
    sublayer: str, name: str, match: str, dtype: torch.dtype
) -> None:
    hf = tiny_hf("llama").to(dtype)
    parent = getattr(hf.model.layers[2], sublayer)
    plain = getattr(parent, name)
    straight = Adapted(plain, bent=False)
    setattr(parent, name, straight)
    part = load_model(hf, tokenizer=tiny_tokenizer()).anatomy.blocks[2]
    found = part.W_O().flatten(0, 1) if name == "o_proj" else part.W_down()
    wanted = plain.weight.detach().float().T + straight.down @ straight.up
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    setattr(parent, name, Adapted(plain, bent=True))
    *_, last = load_model(hf, tokenizer=tiny_tokenizer()).anatomy.blocks
    assert getattr(last, name) is None
    assert re.search(f"{match} is no linear map", last.lacks[name])
    assert last.attn_adds and last.mlp_adds and last.level == "units"


def test_a_hook_that_changes_a_projection_is_noticed() -> None:
    hf = tiny_hf("gpt2")
    hf.transformer.h[1].mlp.c_proj.register_forward_hook(lambda _m, _a, out: 1.05 * out)
    anatomy = load_model(hf, tokenizer=tiny_tokenizer()).anatomy
    assert [part.d_mlp for part in anatomy.blocks] == [D_MLP, 0, D_MLP]
    assert [part.n_heads for part in anatomy.blocks] == [N_HEADS] * 3


@pytest.mark.model
def test_the_default_model(real_model: Any) -> None:
    anatomy = real_model.anatomy
    numbers = (anatomy.n_layers, anatomy.d_model, anatomy.n_heads, anatomy.n_kv_heads)
    assert numbers == (30, 576, 9, 3)
    assert (anatomy.d_head, anatomy.d_mlp, anatomy.context_length) == (64, 1536, 8192)
