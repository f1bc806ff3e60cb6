"""One call of a model while it generates."""

from __future__ import annotations

import inspect
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import ModelError


def position_ids(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Positions counted over real tokens only, so that padding counts for nothing."""
    return (mask.long().cumsum(-1) - 1).clamp_min(0)


def accepted(module: Any, **options: Any) -> dict[str, Any]:
    """Those of the options that a module's ``forward`` names."""
    names = inspect.signature(module.forward).parameters
    return {name: value for name, value in options.items() if name in names}


CACHES = ("past_key_values", "cache_params")
"""What transformers' models call what they keep of earlier tokens; the second: state spaces."""


def takes_cache(hf: Any) -> str | None:
    """The name by which a model takes what it keeps of earlier tokens; None if it takes none."""
    for module in (hf, getattr(hf, "base_model", hf)):  # a forward of one's own passes names on
        for name in accepted(module, **dict.fromkeys(CACHES)):
            return name
    return None


def cached(hf: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name that a model takes it by.

    Raises:
        ModelError: If the model takes none, and so would begin anew at every token.
    """
    name = takes_cache(hf)
    if name is None:
        raise ModelError(
            f"{type(hf).__name__} takes no cache of transformers, so replies cannot be generated "
            "token by token; use model.hf.generate, inside the steering block if it is to be "
            "steered."
        )
    return {name: cache}


def step(
    hf: Any, ids: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"], cache: Any
) -> Float[Tensor, "batch vocab"]:
    """Logits after the last token; keys and values of all go to the cache.

    Args:
        hf: The Hugging Face model.
        ids: The tokens that the cache does not hold.
        mask: Of all tokens, 1 for real ones.
        cache: Keys and values of those before.

    Raises:
        ModelError: As `cached`.
    """
    options = accepted(hf, position_ids=position_ids(mask)[:, -ids.shape[1] :], logits_to_keep=1)
    options |= cached(hf, cache)
    output: Any = hf(input_ids=ids, attention_mask=mask, use_cache=True, **options)
    return output.logits[:, -1]
