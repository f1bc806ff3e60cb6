"""Tiny mixtures of experts."""

from __future__ import annotations

import transformers as tf

from tests.families.shapes import GROUPED, GROUPS, MLA, MOE, PLAIN, ROUTED, WINDOWS, Family

MIXTURES: dict[str, Family] = {
    "mixtral": Family(lambda: tf.MixtralConfig(**GROUPED, **MOE, num_local_experts=4)),
    "qwen2_moe": Family(
        lambda: tf.Qwen2MoeConfig(
            **GROUPED,
            **MOE,
            num_experts=4,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        )
    ),
    "qwen3_moe": Family(
        lambda: tf.Qwen3MoeConfig(
            **GROUPED, **MOE, num_experts=4, moe_intermediate_size=32, head_dim=8
        )
    ),
    "gpt_oss": Family(
        lambda: tf.GptOssConfig(**GROUPED, **MOE, num_local_experts=4, head_dim=8, **WINDOWS)
    ),
    "gpt_oss_long": Family(
        lambda: tf.GptOssConfig(**GROUPED, **MOE, num_local_experts=4, head_dim=8)
    ),
    "olmoe": Family(lambda: tf.OlmoeConfig(**GROUPED, **MOE, num_experts=4)),
    "granitemoe": Family(lambda: tf.GraniteMoeConfig(**GROUPED, **MOE, num_local_experts=4)),
    "glm4_moe": Family(
        lambda: tf.Glm4MoeConfig(**GROUPED, **ROUTED, **GROUPS, head_dim=8, first_k_dense_replace=1)
    ),
    "glm4_moe_lite": Family(
        lambda: tf.Glm4MoeLiteConfig(
            **dict(GROUPED, num_key_value_heads=4),
            **ROUTED,
            **GROUPS,
            **MLA,
            q_lora_rank=16,
            v_head_dim=8,
        )
    ),
    "deepseek_v2_moe": Family(
        lambda: tf.DeepseekV2Config(
            **PLAIN,
            **ROUTED,
            **GROUPS,
            **MLA,
            num_key_value_heads=4,
            q_lora_rank=None,
            v_head_dim=8,
            first_k_dense_replace=1,
        )
    ),
    "deepseek_v3": Family(
        lambda: tf.DeepseekV3Config(
            **PLAIN,
            **ROUTED,
            **GROUPS,
            **MLA,
            num_key_value_heads=4,
            q_lora_rank=16,
            v_head_dim=8,
            first_k_dense_replace=1,
        )
    ),
    "deepseek_v3_alldense": Family(
        lambda: tf.DeepseekV3Config(
            **PLAIN,
            **GROUPS,
            **MLA,
            num_key_value_heads=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            q_lora_rank=16,
            v_head_dim=12,
            first_k_dense_replace=3,
        )
    ),
    "granitemoeshared": Family(
        lambda: tf.GraniteMoeSharedConfig(
            **GROUPED,
            **MOE,
            num_local_experts=4,
            shared_intermediate_size=48,
            residual_multiplier=0.22,
        )
    ),
    "llama4_text": Family(
        lambda: tf.Llama4TextConfig(
            **GROUPED,
            intermediate_size_mlp=64,
            num_local_experts=4,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
            head_dim=8,
            attention_chunk_size=64,
        )
    ),
}
