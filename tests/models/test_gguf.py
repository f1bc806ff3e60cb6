"""GGUF files: converted right, and refused when cut short or broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.core.errors import ModelError
from affectlens.models import weights
from affectlens.models.anatomy.description import describe
from affectlens.models.loading import load_model
from tests.conftest import CONTEXT, D_MLP, N_HEADS, N_KV_HEADS, N_LAYERS, tiny_hf, tiny_tokenizer

IDS = torch.tensor([[5, 17, 33, 42, 8, 99]])
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def plain_llama() -> Any:
    return tiny_hf("llama", attention_bias=False, mlp_bias=False)


def write_gguf(path: Path, hf: Any, *, quantised: bool = False) -> None:
    """As llama.cpp writes it: rows of q and k interleaved, eos named wrongly, no pad token."""
    import gguf
    from gguf import GGMLQuantizationType

    tokenizer = tiny_tokenizer()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hf.config.hidden_size)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_layer_norm_rms_eps(hf.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokenizer))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if i < 4 else 1 for _, i in vocabulary])
    pairs = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_chat_template(tokenizer.chat_template)
    for name, value in hf.state_dict().items():
        array = value.float().numpy()
        for part, heads in (("q_proj", N_HEADS), ("k_proj", N_KV_HEADS)):
            if f"{part}.weight" in name:
                rows = array.reshape(heads, 2, -1, array.shape[1])
                array = np.ascontiguousarray(rows.swapaxes(1, 2).reshape(array.shape))
        if quantised and array.ndim == 2:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_gguf_name(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in fixed:
        return fixed[name]
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{_NAMES[part]}.weight"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, plain_llama())
    return path


def test_a_converted_file_is_the_same_model(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_LOSS", 1e9)
    monkeypatch.setattr(weights.math, "log", lambda _: 1e9)  # random weights speak no English
    model = load_model(file, dtype="float32", device="cpu")
    torch.testing.assert_close(
        model.hf(input_ids=IDS).logits, plain_llama()(input_ids=IDS).logits, atol=1e-4, rtol=1e-4
    )
    assert not hasattr(model.hf.config, "quantization_config")
    assert type(model.hf.model.layers[0].mlp.down_proj) is torch.nn.Linear
    # The file says that <|im_start|> ends a reply; the chat template knows better.
    assert model.eos_ids == (2,)
    assert model.tokenizer.eos_token == "<|im_end|>"
    assert model.pad_id == 2
    text = "I am so angry."
    assert model.tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    half = load_model(str(file), dtype="bfloat16", device="cpu")
    assert half.dtype == torch.bfloat16
    assert half.fingerprint == model.fingerprint


def test_a_quantised_file_becomes_a_plain_model_that_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "check_english", lambda *_: None)
    write_gguf(tmp_path / "q8.gguf", plain_llama(), quantised=True)
    exact, _ = weights.from_gguf(tmp_path / "q8.gguf", torch.float32)
    wanted = plain_llama().model.layers[1].mlp.down_proj.weight
    found = exact.model.layers[1].mlp.down_proj.weight
    assert 0 < (found - wanted).abs().max() < 0.02
    hf, tokenizer = weights.from_gguf(tmp_path / "q8.gguf", torch.bfloat16)
    assert type(hf.model.layers[1].mlp.down_proj) is torch.nn.Linear
    weights.save_model(hf, tokenizer, tmp_path / "out")
    again = load_model(tmp_path / "out", dtype="bfloat16", device="cpu")
    assert torch.equal(again.hf(input_ids=IDS).logits, hf(input_ids=IDS).logits)
    assert again.eos_ids == (2,)
    assert again.tokenizer.chat_template == tokenizer.chat_template


def test_a_model_that_claims_to_be_quantised_is_rebuilt() -> None:
    """What transformers before 5.17 leaves behind; such a model cannot be saved."""
    claims = plain_llama()
    claims.config.quantization_config = {"quant_method": "gguf"}
    plain = weights.without_quantisation(claims)
    assert not hasattr(plain.config, "quantization_config")
    assert torch.equal(plain(input_ids=IDS).logits, claims(input_ids=IDS).logits)
    assert not plain.training


def test_a_conversion_that_speaks_no_english_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match=r"came out broken: its loss on an English sentence"):
        load_model(file)


def test_a_file_cut_short_is_refused(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in (0, 3, 50, 2000, len(whole) // 2, len(whole) - 64):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"cut\.gguf is cut short"):
            load_model(cut)
    cut.write_bytes(b"hello there, this is not a model" * 10)
    with pytest.raises(ModelError, match="no GGUF file"):
        load_model(cut)


def test_describe_reads_the_header(file: Path) -> None:
    about = describe(str(file))
    assert (about["family"], about["n_layers"], about["d_mlp"]) == ("LlamaForCausalLM", 3, D_MLP)
    assert about["weight_bytes"] == file.stat().st_size
