"""Sizes that tiny models of all families share, and where a plain-hook reader finds their parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conftest import VOCAB

CONTEXT = 256


@dataclass(frozen=True)
class Family:
    """A config, and paths of modules in the model (``layers``) or in a block (the others).

    A block in which there is no ``o`` has no heads, one without ``down`` no neurons; ``heads``
    says which have heads where that does not tell. ``mid``: whose
    input is the stream between attention and MLP; None where a block has no middle. ``end``: what a
    block multiplies its whole output by. ``third``: whose output is added after the MLP.
    """

    config: Callable[[], Any]
    cls: str | None = None
    layers: str = "model.layers"
    o: str = "self_attn.o_proj"
    down: str = "mlp.down_proj"
    mid: str | None = "post_attention_layernorm"
    heads: tuple[int, ...] | None = None
    end: float = 1.0
    third: str | None = None


def without(base: dict[str, Any], *names: str) -> dict[str, Any]:
    """The settings except some."""
    return {name: value for name, value in base.items() if name not in names}


TOKENS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
PLAIN = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=CONTEXT,
    **TOKENS,
)
GROUPED = dict(PLAIN, num_key_value_heads=2)
GPT2 = dict(vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=CONTEXT, **TOKENS)
OPT = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    ffn_dim=64,
    max_position_embeddings=CONTEXT,
    word_embed_proj_dim=32,
    **TOKENS,
)
FALCON = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    ffn_hidden_size=64,
    max_position_embeddings=CONTEXT,
    **TOKENS,
)
MOE = dict(num_experts_per_tok=2)
WINDOWS = dict(
    sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
)
LAST_FULL = dict(
    sliding_window=8, layer_types=["sliding_attention", "sliding_attention", "full_attention"]
)
LINEAR = dict(
    layer_types=["linear_attention", "full_attention", "linear_attention"],
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
)
MLA = dict(kv_lora_rank=16, qk_rope_head_dim=4, qk_nope_head_dim=4)
ROUTED = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
GROUPS = dict(n_group=1, topk_group=1)
MAMBA = dict(mamba_n_heads=8, mamba_d_head=8, mamba_d_state=16)
PER_LAYER = dict(vocab_size_per_layer_input=VOCAB)
MROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2])
VISION = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)
QWEN_VISION = dict(depth=2, hidden_size=32, num_heads=2, patch_size=14)
QWEN_TOKENS = dict(
    image_token_id=150, video_token_id=151, vision_start_token_id=152, vision_end_token_id=153
)

# Norms after attention and after the MLP, before each is added.
SANDWICH = dict(
    mid="pre_feedforward_layernorm",
)
POSTNORM = dict(mid="mlp")
TOWER = dict(layers="model.language_model.layers")
AT_GPT2 = dict(layers="transformer.h", o="attn.c_proj", down="mlp.c_proj", mid="ln_2")
AT_GPTJ = dict(layers="transformer.h", o="attn.out_proj", down="mlp.fc_out", mid=None)
AT_GPT_NEO = dict(
    layers="transformer.h", o="attn.attention.out_proj", down="mlp.c_proj", mid="ln_2"
)
AT_GPT_NEOX = dict(layers="gpt_neox.layers", o="attention.dense", down="mlp.dense_4h_to_h")
AT_OPT = dict(
    layers="model.decoder.layers",
    o="self_attn.out_proj",
    down="fc2",
    mid="final_layer_norm",
)
AT_FALCON = dict(
    layers="transformer.h",
    o="self_attention.dense",
    down="mlp.dense_4h_to_h",
)
