"""Tiny state-space models and hybrids."""

from __future__ import annotations

import transformers as tf

from tests.conftest import VOCAB
from tests.families.shapes import CONTEXT, GROUPED, LINEAR, MAMBA, MOE, TOKENS, Family, without

HYBRIDS: dict[str, Family] = {
    "mamba": Family(
        lambda: tf.MambaConfig(
            vocab_size=VOCAB, hidden_size=32, num_hidden_layers=3, state_size=8, **TOKENS
        ),
        layers="backbone.layers",
        mid=None,
    ),
    "mamba2": Family(
        lambda: tf.Mamba2Config(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=3,
            state_size=8,
            num_heads=8,
            head_dim=8,
            n_groups=2,
            **TOKENS,
        ),
        layers="backbone.layers",
        mid=None,
    ),
    "granitemoehybrid_dense": Family(
        lambda: tf.GraniteMoeHybridConfig(
            **GROUPED,
            **MAMBA,
            num_local_experts=0,
            num_experts_per_tok=0,
            shared_intermediate_size=64,
            layer_types=["attention"] * 3,
            residual_multiplier=0.22,
            embedding_multiplier=12.0,
        ),
        down="shared_mlp.output_linear",
    ),
    "granitemoehybrid_mamba": Family(
        lambda: tf.GraniteMoeHybridConfig(
            **GROUPED,
            **MOE,
            **MAMBA,
            num_local_experts=4,
            shared_intermediate_size=64,
            layer_types=["mamba", "attention", "mamba"],
            residual_multiplier=0.22,
        ),
    ),
    "jamba": Family(
        lambda: tf.JambaConfig(
            **GROUPED,
            **MOE,
            attn_layer_period=2,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            use_mamba_kernels=False,
            mamba_d_state=8,
        ),
        down="feed_forward.down_proj",
        mid="pre_ff_layernorm",
    ),
    "bamba": Family(
        lambda: tf.BambaConfig(**GROUPED, **MAMBA, attn_layer_indices=[1]),
        down="feed_forward.down_proj",
        mid="pre_ff_layernorm",
    ),
    "falcon_h1": Family(
        lambda: tf.FalconH1Config(
            **GROUPED,
            mamba_d_ssm=64,
            mamba_n_heads=8,
            mamba_d_head=8,
            mamba_n_groups=1,
            mamba_d_state=16,
            ssm_out_multiplier=0.5,
            attention_out_multiplier=0.7,
        ),
        down="feed_forward.down_proj",
        mid="pre_ff_layernorm",
    ),
    "nemotron_h": Family(
        lambda: tf.NemotronHConfig(
            **without(GROUPED, "num_hidden_layers"),
            layers_block_type=["mamba", "attention", "mlp"],
            head_dim=8,
            mamba_num_heads=8,
            mamba_head_dim=8,
            n_groups=1,
            ssm_state_size=16,
        ),
        o="mixer.o_proj",
        down="mixer.down_proj",
        mid=None,
    ),
    "rwkv": Family(
        lambda: tf.RwkvConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            num_hidden_layers=3,
            context_length=CONTEXT,
            rescale_every=0,
            **TOKENS,
        ),
        layers="rwkv.blocks",
        mid="ln2",
    ),
    "minimax": Family(
        lambda: tf.MiniMaxConfig(
            **GROUPED,
            **MOE,
            num_local_experts=4,
            head_dim=8,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
            block_size=8,
            linear_attn_alpha_factor=0.9,
            linear_attn_beta_factor=1.1,
            full_attn_alpha_factor=0.8,
            full_attn_beta_factor=1.2,
            mlp_alpha_factor=0.7,
            mlp_beta_factor=1.3,
        ),
        heads=(1,),
    ),
    "qwen3_next": Family(
        lambda: tf.Qwen3NextConfig(
            **GROUPED,
            **LINEAR,
            **MOE,
            head_dim=8,
            num_experts=4,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        )
    ),
    "qwen3_5_text": Family(lambda: tf.Qwen3_5TextConfig(**GROUPED, **LINEAR, head_dim=8)),
    "lfm2": Family(
        lambda: tf.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention", "conv"]),
        o="self_attn.out_proj",
        down="feed_forward.w2",
        mid="ffn_norm",
    ),
    "lfm2_moe": Family(
        lambda: tf.Lfm2MoeConfig(
            **GROUPED,
            **MOE,
            num_experts=4,
            moe_intermediate_size=32,
            num_dense_layers=1,
            layer_types=["conv", "full_attention", "conv"],
        ),
        o="self_attn.out_proj",
        down="feed_forward.w2",
        mid="ffn_norm",
    ),
}
