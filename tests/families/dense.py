"""Tiny models with attention and a dense MLP in every block."""

from __future__ import annotations

from typing import Any

import transformers as tf

from tests.conftest import VOCAB
from tests.families.shapes import (
    AT_FALCON,
    AT_GPT2,
    AT_GPT_NEO,
    AT_GPT_NEOX,
    AT_GPTJ,
    AT_OPT,
    CONTEXT,
    FALCON,
    GPT2,
    GROUPED,
    LAST_FULL,
    OPT,
    PER_LAYER,
    PLAIN,
    POSTNORM,
    SANDWICH,
    TOKENS,
    WINDOWS,
    Family,
)


def gpt_neo(layers: int) -> Any:
    return tf.GPTNeoConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        num_layers=layers,
        num_heads=4,
        attention_types=[[["global", "local"], layers // 2]],
        window_size=8,
        intermediate_size=64,
        max_position_embeddings=CONTEXT,
        **TOKENS,
    )


DENSE: dict[str, Family] = {
    "llama": Family(lambda: tf.LlamaConfig(**GROUPED)),
    "llama_attnbias_headdim": Family(
        lambda: tf.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True, head_dim=12)
    ),
    "llama_tied": Family(lambda: tf.LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    "llama3_rope": Family(
        lambda: tf.LlamaConfig(
            **GROUPED,
            rope_parameters=dict(
                rope_type="llama3",
                rope_theta=500000.0,
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        )
    ),
    "mistral": Family(lambda: tf.MistralConfig(**GROUPED, sliding_window=None)),
    "mistral_sliding8": Family(lambda: tf.MistralConfig(**GROUPED, sliding_window=8)),
    "mistral_nemo_headdim": Family(
        lambda: tf.MistralConfig(**GROUPED, head_dim=12, sliding_window=None)
    ),
    "ministral": Family(lambda: tf.MinistralConfig(**GROUPED, head_dim=8, **WINDOWS)),
    "ministral3": Family(lambda: tf.Ministral3Config(**GROUPED, head_dim=12)),
    "qwen2": Family(lambda: tf.Qwen2Config(**GROUPED)),
    "qwen2_sliding": Family(
        lambda: tf.Qwen2Config(
            **GROUPED, use_sliding_window=True, sliding_window=8, max_window_layers=1
        )
    ),
    "qwen3": Family(lambda: tf.Qwen3Config(**GROUPED, head_dim=12, tie_word_embeddings=True)),
    "qwen3_untied_bias": Family(lambda: tf.Qwen3Config(**GROUPED, head_dim=8, attention_bias=True)),
    "phi": Family(lambda: tf.PhiConfig(**PLAIN), o="self_attn.dense", down="mlp.fc2", mid=None),
    "phi3": Family(lambda: tf.Phi3Config(**GROUPED)),
    "phi3_sliding": Family(lambda: tf.Phi3Config(**GROUPED, sliding_window=8)),
    "phi4_mini_longrope": Family(
        lambda: tf.Phi3Config(
            **GROUPED,
            tie_word_embeddings=True,
            original_max_position_embeddings=200,
            rope_parameters=dict(
                rope_type="longrope",
                rope_theta=10000.0,
                partial_rotary_factor=0.75,
                short_factor=[1.0, 1.1, 1.2],
                long_factor=[1.5, 2.0, 3.0],
                original_max_position_embeddings=200,
            ),
        )
    ),
    "smollm3": Family(lambda: tf.SmolLM3Config(**GROUPED)),
    "stablelm": Family(lambda: tf.StableLmConfig(**GROUPED)),
    "stablelm_parallel": Family(
        lambda: tf.StableLmConfig(**GROUPED, use_parallel_residual=True), mid=None
    ),
    "stablelm_qknorm": Family(
        lambda: tf.StableLmConfig(**GROUPED, qk_layernorm=True, use_qkv_bias=True)
    ),
    "starcoder2": Family(
        lambda: tf.Starcoder2Config(**GROUPED, sliding_window=None), down="mlp.c_proj"
    ),
    "starcoder2_sliding": Family(
        lambda: tf.Starcoder2Config(**GROUPED, sliding_window=8), down="mlp.c_proj"
    ),
    "granite_mult1": Family(lambda: tf.GraniteConfig(**GROUPED)),
    "granite_real": Family(
        lambda: tf.GraniteConfig(
            **GROUPED,
            embedding_multiplier=12.0,
            logits_scaling=8.0,
            residual_multiplier=0.22,
            attention_multiplier=0.0156,
        )
    ),
    "nemotron": Family(lambda: tf.NemotronConfig(**GROUPED)),
    "ernie4_5": Family(lambda: tf.Ernie4_5Config(**GROUPED, head_dim=8)),
    "hunyuan_dense": Family(lambda: tf.HunYuanDenseV1Config(**GROUPED, head_dim=8)),
    "arcee": Family(lambda: tf.ArceeConfig(**GROUPED)),
    "cohere": Family(lambda: tf.CohereConfig(**GROUPED, logit_scale=0.25), mid=None),
    "cohere_qknorm": Family(
        lambda: tf.CohereConfig(**GROUPED, logit_scale=0.25, use_qk_norm=True), mid=None
    ),
    "cohere2": Family(lambda: tf.Cohere2Config(**GROUPED, logit_scale=0.25, **WINDOWS), mid=None),
    # Norms after the sublayers.
    "olmo": Family(lambda: tf.OlmoConfig(**GROUPED)),
    "olmo2": Family(lambda: tf.Olmo2Config(**GROUPED), **POSTNORM),
    "olmo3": Family(lambda: tf.Olmo3Config(**GROUPED, **WINDOWS), **POSTNORM),
    "glm": Family(lambda: tf.GlmConfig(**GROUPED, head_dim=8)),
    "glm4": Family(
        lambda: tf.Glm4Config(**GROUPED, head_dim=8),
    ),
    # Gemma.
    "gemma": Family(lambda: tf.GemmaConfig(**GROUPED, head_dim=16)),
    "gemma2": Family(
        lambda: tf.Gemma2Config(**GROUPED, head_dim=16, sliding_window=8, query_pre_attn_scalar=16),
        **SANDWICH,
    ),
    "gemma3_text": Family(
        lambda: tf.Gemma3TextConfig(**GROUPED, head_dim=16, **WINDOWS), **SANDWICH
    ),
    "gemma4_text": Family(
        lambda: tf.Gemma4TextConfig(
            **GROUPED,
            head_dim=8,
            global_head_dim=16,
            **LAST_FULL,
            **PER_LAYER,
            hidden_size_per_layer_input=0,
        ),
        **SANDWICH,
        end=0.7,
    ),
    "gemma4_text_samehd": Family(
        lambda: tf.Gemma4TextConfig(
            **GROUPED,
            head_dim=8,
            global_head_dim=8,
            **LAST_FULL,
            **PER_LAYER,
            hidden_size_per_layer_input=0,
        ),
        **SANDWICH,
    ),
    "gemma4_e2b": Family(
        lambda: tf.Gemma4TextConfig(
            **GROUPED,
            head_dim=8,
            global_head_dim=16,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            **PER_LAYER,
            hidden_size_per_layer_input=8,
            num_kv_shared_layers=1,  # the last block takes keys and values of the one before
        ),
        **SANDWICH,
        end=0.7,
        third="post_per_layer_input_norm",
    ),
    # GPT and other older ones.
    "gpt2": Family(lambda: tf.GPT2Config(**GPT2, n_inner=64), **AT_GPT2),
    "gpt_bigcode": Family(lambda: tf.GPTBigCodeConfig(**GPT2, n_inner=64), **AT_GPT2),
    "gpt_neox": Family(lambda: tf.GPTNeoXConfig(**PLAIN), **AT_GPT_NEOX, mid=None),
    "gpt_neox_seq": Family(
        lambda: tf.GPTNeoXConfig(**PLAIN, use_parallel_residual=False), **AT_GPT_NEOX
    ),
    "gptj": Family(lambda: tf.GPTJConfig(**GPT2, rotary_dim=4, n_inner=64), **AT_GPTJ),
    "codegen": Family(lambda: tf.CodeGenConfig(**GPT2, rotary_dim=4, n_inner=64), **AT_GPTJ),
    "gpt_neo": Family(lambda: gpt_neo(2), **AT_GPT_NEO),
    "gpt_neo4": Family(lambda: gpt_neo(4), **AT_GPT_NEO),
    "opt": Family(lambda: tf.OPTConfig(**OPT), **AT_OPT),
    "opt_postnorm350m": Family(
        lambda: tf.OPTConfig(**OPT, do_layer_norm_before=False),
        **dict(AT_OPT, mid="self_attn_layer_norm"),
    ),
    "bloom": Family(
        lambda: tf.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=3, n_head=4, **TOKENS),
        layers="transformer.h",
        o="self_attention.dense",
        down="mlp.dense_4h_to_h",
    ),
    "falcon7b_parallel": Family(
        lambda: tf.FalconConfig(
            **FALCON,
            alibi=False,
            parallel_attn=True,
            bias=False,
            multi_query=True,
            new_decoder_architecture=False,
        ),
        **AT_FALCON,
        mid=None,
    ),
    "falcon40b_newarch": Family(
        lambda: tf.FalconConfig(
            **FALCON, num_kv_heads=2, alibi=False, bias=False, new_decoder_architecture=True
        ),
        **AT_FALCON,
        mid=None,
    ),
    "falcon_rw_seq_alibi": Family(
        lambda: tf.FalconConfig(
            **FALCON, alibi=True, parallel_attn=False, multi_query=False, bias=True
        ),
        **AT_FALCON,
    ),
    "mpt": Family(
        lambda: tf.MptConfig(
            vocab_size=VOCAB,
            d_model=32,
            n_layers=3,
            n_heads=4,
            expansion_ratio=2,
            max_seq_len=CONTEXT,
        ),
        layers="transformer.blocks",
        o="attn.out_proj",
        down="ffn.down_proj",
        mid="norm_2",
    ),
    "modernbert_decoder": Family(
        lambda: tf.ModernBertDecoderConfig(
            **PLAIN, local_attention=8, global_attn_every_n_layers=3
        ),
        o="attn.Wo",
        down="mlp.Wo",
        mid="mlp_norm",
    ),
}
