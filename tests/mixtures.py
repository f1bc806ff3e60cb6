"""Tiny random mixtures of experts of the families that transformers has."""

from __future__ import annotations

from functools import cache
from typing import Any

VOCAB = 200
_PLAIN: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "num_experts_per_tok": 2,
}
_DEEPSEEK: dict[str, Any] = {
    "n_routed_experts": 4,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}
_MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 12,
}
_SHARED: dict[str, Any] = {
    "num_experts": 4,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 20,
}
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2MoeConfig", _SHARED),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "norm_topk_prob": True},
    ),
    "gpt_oss": (
        "GptOssConfig",
        {
            "num_local_experts": 4,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "deepseek_v3": ("DeepseekV3Config", {**_DEEPSEEK, **_MLA}),
    "glm4_moe": ("Glm4MoeConfig", {**_DEEPSEEK, "head_dim": 8}),
    "llama4": (
        "Llama4TextConfig",
        {
            "num_local_experts": 4,
            "intermediate_size_mlp": 40,
            "interleave_moe_layer_step": 2,
            "head_dim": 8,
            "attention_chunk_size": 64,
        },
    ),
    "olmoe": ("OlmoeConfig", {"num_experts": 4}),
    "granitemoe": ("GraniteMoeConfig", {"num_local_experts": 4, "residual_multiplier": 0.5}),
    "granitemoeshared": (
        "GraniteMoeSharedConfig",
        {"num_local_experts": 4, "residual_multiplier": 0.5, "shared_intermediate_size": 20},
    ),
    "minimax": (
        "MiniMaxConfig",
        {"num_local_experts": 4, "head_dim": 8, "layer_types": ["full_attention"] * 3},
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {
            **_SHARED,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
}
MIXTURES: tuple[str, ...] = tuple(_SETTINGS)


@cache
def mixture_hf(name: str, **changes: Any) -> Any:
    """A random model: norm weights far from trivial, every bias non-zero."""
    import torch
    import transformers as tf

    cls, settings = _SETTINGS[name]
    config = getattr(tf, cls)(**{**_PLAIN, **settings, **changes})
    hf = tf.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in sorted(hf.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            norm = parameter.ndim == 1 and "bias" not in parameter_name
            if parameter.ndim == 1 or parameter_name.endswith("_bias"):
                parameter.copy_(0.3 * noise + (0.8 if norm else 0.1))
            else:
                parameter.copy_(noise * 0.5 / parameter.shape[-1] ** 0.25)
    return hf
