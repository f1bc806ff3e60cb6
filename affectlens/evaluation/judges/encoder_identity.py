"""What an encoder is, as a hash: an adapter is fitted on one encoder and means nothing on another.

A low-rank change fits every encoder of the same shape, so shapes cannot tell a wrong one apart.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from affectlens.core import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FORWARD = (
    "model_type",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "is_decoder",
    "layer_norm_eps",
    "num_attention_heads",
    "num_hidden_layers",
    "position_embedding_type",
    "max_position_embeddings",
)
"""Settings that change a forward pass. Named, because libraries add and drop settings."""

_PROBES = (
    "Café NAÏVE don't, co-operate!  (3.14)",
    "SUPERCALIFRAGILISTIC antidisestablishmentarianism\tover\nlines…",
    "Привет 你好 ひらがな 🙂",
)
"""Texts whose tokens tell case, accents, punctuation, pieces and other scripts apart."""


@torch.no_grad()
def encoder_fingerprint(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Content hash (16 hex digits) of an encoder and the tokenizer before it.

    Covers every floating-point tensor (as fp32), the settings that change a forward pass, the
    vocabulary, and how the tokenizer treats case, accents and other scripts. Hashes 91 MB in about
    0.2 s.

    Args:
        encoder: The plain encoder, no adapter merged into it.
        tokenizer: Its tokenizer.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            plain = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(memoryview(plain.numpy()).cast("B"))
    settings = {key: getattr(encoder.config, key, None) for key in _FORWARD}
    settings["position_embedding_type"] = settings["position_embedding_type"] or "absolute"
    reads = [tokenizer(text)["input_ids"] for text in _PROBES]
    return fingerprint(digest.hexdigest(), settings, sorted(tokenizer.get_vocab().items()), reads)
