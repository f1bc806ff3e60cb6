"""Grouped-query attention for decoding, without copying the keys once per query head.

Transformers repeats keys and values for every query head of a group before it calls PyTorch's
attention. While tokens are generated one by one, that copy and one small product per head are most
of the work on a CPU. All heads of a group see the same keys, so they can stand in for several
queries of one head: the same products, in one call per key-value head, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

NAME = "affectlens_grouped"


def grouped_attention(
    module: Any,
    query: Float[Tensor, "batch head query d"],
    key: Float[Tensor, "batch kv_head key d"],
    value: Float[Tensor, "batch kv_head key d"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Transformers' ``sdpa`` attention; decoding steps of grouped heads take the short way.

    Returns:
        Attention output ``[batch, query, head, d]``, and None for the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, queries, width = query.shape
    kv_heads = key.shape[1]
    one_mask = attention_mask is None or attention_mask.shape[1] == 1
    if queries > 1 or heads == kv_heads or not one_mask or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    grouped = query.reshape(batch, kv_heads, heads // kv_heads, width)
    scale = width**-0.5 if scaling is None else scaling
    if query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16):
        output = _products(grouped, key, value, attention_mask, scale)
    else:
        output = F.scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scale
        )
    return output.reshape(batch, 1, heads, value.shape[-1]), None


def _products(
    query: Float[Tensor, "batch kv_head group d"],
    key: Float[Tensor, "batch kv_head key d"],
    value: Float[Tensor, "batch kv_head key d"],
    mask: Tensor | None,
    scale: float,
) -> Float[Tensor, "batch kv_head group d"]:
    """Attention as two matrix products, with float32 softmax, as Transformers' ``eager`` does it.

    In 16-bit formats on a CPU this is twice as fast as PyTorch's fused kernel, which is made for
    many queries. Keys come first in the product: PyTorch then need not transpose them.
    """
    scores = torch.matmul(key, query.transpose(-1, -2)).transpose(-1, -2).float() * scale
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(-1).to(value.dtype), value)


@contextmanager
def fast_decoding(hf: Any) -> Generator[None, None, None]:
    """Let a model use `grouped_attention` inside the block, if it uses ``sdpa`` now."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    config = hf.config
    if getattr(config, "_attn_implementation", None) != "sdpa":
        yield
        return
    # Transformers' own extension points; registering the same function again changes nothing.
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    hf.set_attn_implementation(NAME)
    try:
        yield
    finally:
        hf.set_attn_implementation("sdpa")
