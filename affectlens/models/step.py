"""One call of a model while it generates."""

from __future__ import annotations

import inspect
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor


def position_ids(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Positions counted over real tokens only, so that padding counts for nothing."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)


def accepted(module: Any, **options: Any) -> dict[str, Any]:
    """Those of the options that a module's ``forward`` names."""
    names = inspect.signature(module.forward).parameters
    return {name: value for name, value in options.items() if name in names}


def step(
    hf: Any, ids: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"], cache: Any
) -> Float[Tensor, "batch vocab"]:
    """Logits after the last token; keys and values of all go to the cache.

    Args:
        hf: The Hugging Face model.
        ids: The tokens that the cache does not hold.
        mask: Of all tokens, 1 for real ones.
        cache: Keys and values of those before.
    """
    options = accepted(hf, position_ids=position_ids(mask)[:, -ids.shape[1] :], logits_to_keep=1)
    output: Any = hf(
        input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **options
    )
    return output.logits[:, -1]
