"""A cap on attention scores holds whatever way a model comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from affectlens.models.loading import load_model
from tests.conftest import tiny_hf, tiny_tokenizer

IDS = torch.tensor([[5, 17, 33, 42, 8, 99]])
CAP = 5.0  # small enough to matter on random weights


def gemma2(attention: str) -> Any:
    """A random Gemma 2 with large scores."""
    config = tf.Gemma2Config(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=64,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=CAP,
        pad_token_id=0,
    )
    config._attn_implementation = "eager"  # some versions refuse sdpa when a model is made
    torch.manual_seed(0)
    hf = tf.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.5)
    config._attn_implementation = hf.config._attn_implementation = attention
    return hf


@torch.no_grad()
def test_every_way_in_keeps_the_cap(tmp_path: Path) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    wanted = gemma2("eager")(input_ids=IDS).logits
    uncapped = gemma2("eager")
    for layer in uncapped.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert not torch.allclose(uncapped(input_ids=IDS).logits, wanted, atol=0.1)

    gemma2("eager").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    hf = gemma2("sdpa")
    bridge = build_bridge_from_module(
        hf, type(hf).__name__, hf_config=hf.config, tokenizer=tiny_tokenizer()
    )
    for model in (
        load_model(tmp_path, dtype="float32", device="cpu"),
        load_model(gemma2("sdpa"), tokenizer=tiny_tokenizer()),
        load_model(bridge),
    ):
        assert model.hf.config._attn_implementation == "eager"
        got = model.logits(model.anatomy.base(input_ids=IDS).last_hidden_state)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("place", ["config", "module"])
def test_a_cap_is_seen_wherever_it_is_kept(place: str, caplog: pytest.LogCaptureFixture) -> None:
    hf = tiny_hf("llama")
    assert load_model(hf, tokenizer=tiny_tokenizer()).hf.config._attn_implementation == "sdpa"
    holder = hf.config if place == "config" else hf.model.layers[1].self_attn
    holder.attn_logit_softcapping = CAP
    load_model(hf, tokenizer=tiny_tokenizer())
    assert hf.config._attn_implementation == "eager"
    assert "caps its attention scores, which sdpa leaves out" in caplog.text
