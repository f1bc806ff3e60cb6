"""From the output of the base model to logits, as the family's own head computes them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import ModelError


def unembed(hf: Any, hidden: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of hidden states that are already after the final norm.

    Includes what some families do after the matrix: Gemma's soft cap, Cohere's and Granite's scale.

    Args:
        hf: The Hugging Face causal language model.
        hidden: ``last_hidden_state`` of its base model, any rows of it.

    Raises:
        ModelError: If the model has no output embedding.
    """
    head = hf.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(hf).__name__} has no output embedding, so it gives no logits.")
    config = hf.config.get_text_config() if hasattr(hf.config, "get_text_config") else hf.config
    before = getattr(hf, "lm_head", None)  # ModernBERT's decoder calls a head before the matrix so
    if before is not None and before is not head and hasattr(before, "dense"):
        hidden = before(hidden)
    logits = head(hidden)
    scale = getattr(config, "logit_scale", None)  # Cohere
    if scale is not None:
        logits = logits * scale
    divisor = getattr(config, "logits_scaling", None)  # Granite
    if divisor is not None:
        logits = logits / divisor
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and 3
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
