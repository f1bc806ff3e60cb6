"""Every engine against the model computed by hand, TransformerLens's cache and nnsight's traces."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from affectlens.activations.forward.engines import ENGINES, open_engine
from affectlens.core.places import KINDS, Site
from affectlens.models.loading import LanguageModel, load_model
from tests.conftest import FAMILIES, N_HEADS, N_LAYERS, make_tiny, tiny_hf, tiny_tokenizer
from tests.models.reference import reference

ROWS = (
    (5, 17, 33, 42, 8, 99, 120, 7, 66, 150, 31, 12),
    (60, 61, 62, 63, 64),
    (70, 71, 72, 73, 74, 75, 76, 77, 78),
)
LONGEST = max(map(len, ROWS))

Values = dict[Site, Tensor]


def sites_of(model: LanguageModel, kinds: tuple[str, ...] = KINDS) -> list[Site]:
    kinds = tuple(kind for kind in kinds if kind != "resid_mid" or model.anatomy.has_resid_mid)
    return [Site(layer, kind) for layer in range(model.n_layers) for kind in kinds]


def run(
    name: str, model: LanguageModel, sites: list[Site], side: str = "right", **options: Any
) -> Values:
    """What an engine reads from `ROWS` in one padded batch, row by row without the padding."""
    ids, mask = model.encode_batch(ROWS, side)
    seen: Values = {}
    engine = open_engine(name, model, **options)

    def read(site: Site, value: Tensor) -> None:
        assert site not in seen
        assert not value.requires_grad
        assert value.shape == (*ids.shape, engine.width(site))
        seen[site] = value[mask.bool()].clone()

    engine.forward(ids, mask, sites, read)
    assert set(seen) == set(sites)
    return seen


def assert_same(seen: Values, wanted: Values, tolerance: float = 1e-5) -> None:
    for site, value in wanted.items():
        scale = float(value.abs().max())
        assert scale > 0.01, site
        worst = float((seen[site] - value).abs().max()) / scale
        assert worst < tolerance, f"{site}: {worst:.1e}"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_engines_read_what_the_model_computes(
    family: str, name: str, side: str, tiny_model: Any
) -> None:
    model = tiny_model(family)
    rows = [reference(family, model.hf, torch.tensor([row])) for row in ROWS]
    wanted = {site: torch.cat([row[site][0] for row in rows]) for site in rows[0]}
    assert_same(run(name, model, sites_of(model), side), wanted)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_residuals_are_the_hidden_states_of_transformers(family: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    seen = run("transformers", model, sites_of(model))
    ids, mask = model.encode_batch(ROWS)
    out = model.hf(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    for layer in range(N_LAYERS):
        assert torch.equal(seen[Site(layer, "resid_pre")], out.hidden_states[layer][mask.bool()])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_names_are_those_of_transformer_lens(family: str, tiny_model: Any) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    model, hf = tiny_model(family), tiny_hf(family)
    # TransformerLens leaves OPT's attention to Transformers, so it has no patterns to show.
    sites = sites_of(model, KINDS if family == "opt" else (*KINDS, "pattern"))
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    ids, mask = model.encode_batch(ROWS)
    _, cache = bridge.run_with_cache(
        ids, attention_mask=mask, names_filter=[site.hook_name for site in sites]
    )
    wanted: Values = {}
    for site in sites:
        value = cache[site.hook_name]
        if site.kind == "pattern":
            assert value.shape == (len(ROWS), N_HEADS, LONGEST, LONGEST)
            value = value.transpose(1, 2)
        wanted[site] = value.flatten(2)[mask.bool()]
    for name in ("transformers", "transformer_lens"):
        assert_same(run(name, model, sites, key_length=LONGEST), wanted)


NAMES = {
    "gpt2": ("transformer.h", "attn.c_proj", "mlp.c_proj", None, None, "ln_2"),
    "gpt_neox": ("gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h", None, None, None),
    "opt": ("model.decoder.layers", "self_attn.out_proj", "fc2", None, None, "final_layer_norm"),
    "gemma3": (
        "model.layers",
        "self_attn.o_proj",
        "mlp.down_proj",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
        "pre_feedforward_layernorm",
    ),
    "olmo2": (
        "model.layers",
        "self_attn.o_proj",
        "mlp.down_proj",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
        "mlp",
    ),
}
USUAL = (
    "model.layers",
    "self_attn.o_proj",
    "mlp.down_proj",
    None,
    None,
    "post_attention_layernorm",
)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_values_are_those_of_nnsight(family: str, tiny_model: Any) -> None:
    """Module names spelt out here, in an nnsight trace of its own."""
    import nnsight

    blocks, o_proj, down_proj, attn_norm, mlp_norm, mid = NAMES.get(family, USUAL)
    model, root = tiny_model(family), nnsight.NNsight(tiny_hf(family))
    ids, mask = model.encode_batch(ROWS)
    with root.trace(input_ids=ids, attention_mask=mask):
        saved = nnsight.save([])
        for layer in range(3):
            block = root.get(f"{blocks}.{layer}")
            saved.append(block.input)
            saved.append(block.get(o_proj).input)
            saved.append(block.get(attn_norm or o_proj).output)
            saved.append(block.get(mid).input if mid else None)
            saved.append(block.get(down_proj).input)
            saved.append(block.get(mlp_norm or down_proj).output)
            saved.append(block.output)
    order = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")
    wanted: Values = {}
    for i, value in enumerate(saved):
        if value is not None:
            value = value[0] if isinstance(value, tuple) else value
            value = value.reshape(*mask.shape, -1)  # OPT has no batch axis in its MLP
            wanted[Site(i // len(order), order[i % len(order)])] = value[mask.bool()]
    sites = sites_of(model)
    assert set(sites) == set(wanted)
    for name in ("transformers", "nnsight"):
        seen = run(name, model, sites)
        assert all(torch.equal(seen[site], wanted[site]) for site in sites)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
@torch.no_grad()
def test_a_bridge_of_the_users_own(family: str, tiny_model: Any) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    plain, hf = tiny_model(family), tiny_hf(family)
    bridge = build_bridge_from_module(
        hf, type(hf).__name__, hf_config=hf.config, tokenizer=tiny_tokenizer()
    )
    model = load_model(bridge)
    seen: list[Any] = []
    bridge.add_hook("blocks.1.hook_resid_post", lambda value, hook: seen.append(value))
    assert model.bridge is bridge
    assert plain.bridge is None
    sites = sites_of(model, (*KINDS, "pattern"))
    wanted = run("transformers", plain, sites, key_length=LONGEST)
    for i, name in enumerate(("transformers", "transformer_lens")):
        for side in ("left", "right"):
            assert_same(run(name, model, sites, side, key_length=LONGEST), wanted)
        assert len(seen) == 2 * (i + 1)  # the user's hook stays, and runs


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_bfloat16_within_its_rounding(family: str, tiny_model: Any) -> None:
    model = tiny_model(family)
    rounded = make_tiny(family)
    rounded.hf.to(torch.bfloat16)
    sites = sites_of(model)
    full = run("transformers", model, sites)
    seen = run("transformers", rounded, sites)
    assert all(value.dtype == torch.bfloat16 for value in seen.values())
    for site in sites:
        error = (seen[site].float() - full[site]).norm() / full[site].norm()
        assert error < 0.05, site
