"""Tiny models for images or sound, with a language model inside."""

from __future__ import annotations

from typing import Any

import transformers as tf

from tests.families.shapes import (
    GROUPED,
    LAST_FULL,
    LINEAR,
    MROPE,
    PER_LAYER,
    QWEN_TOKENS,
    QWEN_VISION,
    SANDWICH,
    TOWER,
    VISION,
    WINDOWS,
    Family,
)


def pixtral() -> Any:
    return tf.PixtralVisionConfig(**VISION, head_dim=16)


WRAPPERS: dict[str, Family] = {
    # With images or sound.
    "gemma3_mm": Family(
        lambda: tf.Gemma3Config(
            text_config=dict(GROUPED, head_dim=16, **WINDOWS),
            vision_config=dict(VISION),
            mm_tokens_per_image=4,
            image_token_index=150,
            boi_token_index=151,
            eoi_token_index=152,
        ),
        **TOWER,
        **SANDWICH,
    ),
    "gemma4_mm": Family(
        lambda: tf.Gemma4Config(
            text_config=dict(
                GROUPED,
                head_dim=8,
                global_head_dim=16,
                **LAST_FULL,
                **PER_LAYER,
                hidden_size_per_layer_input=0,
            ),
            vision_config=dict(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=16,
                global_head_dim=16,
            ),
            audio_config=None,
            image_token_id=150,
        ),
        cls="Gemma4ForConditionalGeneration",
        **TOWER,
        **SANDWICH,
    ),
    "llama4_mm": Family(
        lambda: tf.Llama4Config(
            text_config=dict(
                GROUPED,
                intermediate_size_mlp=64,
                num_local_experts=4,
                num_experts_per_tok=1,
                interleave_moe_layer_step=1,
                head_dim=8,
                attention_chunk_size=64,
            ),
            vision_config=dict(
                VISION, vision_output_dim=32, projector_input_dim=32, projector_output_dim=32
            ),
        ),
        cls="Llama4ForConditionalGeneration",
        layers="language_model.model.layers",
    ),
    "llava": Family(
        lambda: tf.LlavaConfig(
            text_config=tf.LlamaConfig(**GROUPED),
            vision_config=tf.CLIPVisionConfig(**VISION),
            image_token_index=150,
        ),
        cls="LlavaForConditionalGeneration",
        **TOWER,
    ),
    "smolvlm": Family(
        lambda: tf.SmolVLMConfig(
            text_config=tf.LlamaConfig(**GROUPED), vision_config=dict(VISION), image_token_id=150
        ),
        cls="SmolVLMForConditionalGeneration",
        layers="model.text_model.layers",
    ),
    "mistral3_mm": Family(
        lambda: tf.Mistral3Config(
            text_config=tf.MistralConfig(**GROUPED, head_dim=8, sliding_window=None),
            vision_config=pixtral(),
            image_token_index=150,
        ),
        cls="Mistral3ForConditionalGeneration",
        **TOWER,
    ),
    "mistral3_ministral3": Family(
        lambda: tf.Mistral3Config(
            text_config=tf.Ministral3Config(**GROUPED, head_dim=12),
            vision_config=pixtral(),
            image_token_index=150,
        ),
        cls="Mistral3ForConditionalGeneration",
        **TOWER,
    ),
    "qwen2_audio": Family(
        lambda: tf.Qwen2AudioConfig(
            text_config=tf.Qwen2Config(**GROUPED),
            audio_config=dict(
                d_model=32,
                encoder_layers=2,
                encoder_attention_heads=2,
                encoder_ffn_dim=64,
                num_mel_bins=8,
                max_source_positions=16,
            ),
            audio_token_index=150,
        ),
        cls="Qwen2AudioForConditionalGeneration",
        **TOWER,
    ),
    "qwen2_vl": Family(
        lambda: tf.Qwen2VLConfig(
            text_config=dict(GROUPED, rope_parameters=dict(MROPE)),
            vision_config=dict(QWEN_VISION, embed_dim=32),
            **QWEN_TOKENS,
        ),
        cls="Qwen2VLForConditionalGeneration",
        **TOWER,
    ),
    "qwen2_5_vl": Family(
        lambda: tf.Qwen2_5_VLConfig(
            text_config=dict(GROUPED, rope_parameters=dict(MROPE)),
            vision_config=dict(
                QWEN_VISION, out_hidden_size=32, intermediate_size=64, fullatt_block_indexes=[1]
            ),
            **QWEN_TOKENS,
        ),
        cls="Qwen2_5_VLForConditionalGeneration",
        **TOWER,
    ),
    "qwen3_vl": Family(
        lambda: tf.Qwen3VLConfig(
            text_config=dict(
                GROUPED, head_dim=8, rope_parameters=dict(MROPE, mrope_interleaved=True)
            ),
            vision_config=dict(
                QWEN_VISION,
                out_hidden_size=32,
                intermediate_size=64,
                num_position_embeddings=16,
                deepstack_visual_indexes=[0],
            ),
            **QWEN_TOKENS,
        ),
        cls="Qwen3VLForConditionalGeneration",
        **TOWER,
    ),
    "qwen3_5_mm": Family(
        lambda: tf.Qwen3_5Config(
            text_config=dict(GROUPED, **LINEAR, head_dim=8),
            vision_config=dict(
                QWEN_VISION, out_hidden_size=32, intermediate_size=64, num_position_embeddings=16
            ),
            **QWEN_TOKENS,
        ),
        cls="Qwen3_5ForConditionalGeneration",
        **TOWER,
    ),
    "phi4_mm": Family(
        lambda: tf.Phi4MultimodalConfig(
            **GROUPED,
            vision_config=dict(VISION, crop_size=28, image_token_id=150),
            audio_config=dict(
                hidden_size=32,
                intermediate_size=64,
                num_blocks=1,
                num_attention_heads=2,
                ext_pw_out_channel=32,
                nemo_conv_channels=32,
                audio_token_id=151,
            ),
        )
    ),
}
