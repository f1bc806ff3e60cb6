"""Attention patterns beside fused attention.

Fused kernels never form the attention weights. The query, key and mask of each call are looked at
where Transformers picks its attention function, and the weights are computed once more from them;
the attention itself stays the one the model was loaded with.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import RLock
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from affectlens.core.errors import DataError, ModelError

_LOCK = RLock()
"""Held while a pass is watched: where attention is picked is one object for the whole process."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of the attention function that transformers picked for a module.

    Attributes:
        module: The attention module.
        implementation: Name of the function.
        query, key: After rotation, ``[batch, head, pos, d]``.
        mask: As the function got it.
        arguments: The rest that it got by name.
        output: What it gave, ``[batch, query, head, d]``.
        weights: What it gave beside that; None from fused kernels.
    """

    module: nn.Module
    implementation: str
    query: Tensor
    key: Tensor
    mask: Any
    arguments: Mapping[str, Any]
    output: Tensor
    weights: Tensor | None


@contextmanager
def attention_calls(seen: Callable[[AttentionCall], None]) -> Generator[None, None, None]:
    """Call ``seen`` after each attention that transformers runs inside, in any thread."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    functions: Any = ALL_ATTENTION_FUNCTIONS
    with _LOCK:
        before = vars(functions).get("get_interface")
        pick = functions.get_interface

        def get_interface(name: str, default: Callable[..., Any]) -> Callable[..., Any]:
            attend = pick(name, default)

            def watched(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
                output = attend(module, query, key, *args, **kwargs)
                mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
                seen(AttentionCall(module, name, query, key, mask, kwargs, *output[:2]))
                return output

            return watched

        functions.get_interface = get_interface
        try:
            yield
        finally:
            del functions.get_interface
            if before is not None:
                functions.get_interface = before


@contextmanager
def watching_attention(
    readers: Mapping[nn.Module, Callable[[Tensor], None]],
) -> Generator[None, None, None]:
    """Call a module's reader with its weights ``[batch, head, query, key]`` at each attention call.

    Args:
        readers: Attention modules of raw Hugging Face models. Other modules run as ever.

    Raises:
        ModelError: In the forward pass, if the attention has parts that are not known here.
    """

    def seen(call: AttentionCall) -> None:
        reader = readers.get(call.module)
        if reader is None:
            return
        weights = call.weights
        if weights is None:
            weights = attention_weights(
                call.module,
                call.implementation,
                call.query,
                call.key,
                call.mask,
                **call.arguments,
            )
        reader(weights)

    with attention_calls(seen):
        yield


@dataclass(frozen=True)
class AttentionArguments:
    """What a fused attention function is called with beside its tensors.

    Attributes:
        scaling: Factor of the scores; None is one over the root of the head's width.
        sliding_window: How many keys, back from each query, are seen; None is all.
        softcap: What scores are bent to stay under, by the implementations that know it.
        is_causal: Whether later keys are hidden; None is as the module says.
    """

    scaling: float | None = None
    sliding_window: int | None = None
    softcap: float | None = None
    is_causal: bool | None = None

    @classmethod
    def of(cls, implementation: str, arguments: Mapping[str, Any]) -> AttentionArguments:
        """From a call of the function; arguments that change no weights are passed over.

        Raises:
            ModelError: If one changes the weights in a way not known here.
        """
        for name in ("s_aux", "position_bias", "cache"):
            if arguments.get(name) is not None:
                raise _not_understood(implementation, name)
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in arguments.items() if name in known})


def _not_understood(implementation: str, what: str) -> ModelError:
    return ModelError(
        f"Attention patterns cannot be read from {implementation} attention with {what}; give a "
        "Hugging Face model loaded with attn_implementation='eager'."
    )


def attention_weights(
    module: Any,
    implementation: str,
    query: Float[Tensor, "batch head query d"],
    key: Float[Tensor, "batch kv_head key d"],
    mask: Any,
    **arguments: Any,
) -> Float[Tensor, "batch head query key"]:
    """What a fused attention function weighs the values with, in the query's number format.

    Args:
        module: The attention module.
        implementation: Name of the function, which decides whether it knows soft caps.
        query, key: After rotation; fewer key heads than query heads where they are grouped.
        mask: As the function gets it: ``[batch, 1, query, key]`` of booleans or of numbers to add,
            ``[batch, key]`` (1 = real), or None for plain causal attention.
        **arguments: As the function gets them; see `AttentionArguments`.

    Raises:
        ModelError: If there is something among them that changes the weights in a way not known
            here.
    """
    given = AttentionArguments.of(implementation, arguments)
    if not (mask is None or isinstance(mask, Tensor)):
        raise _not_understood(implementation, type(mask).__name__)
    batch, heads, queries, width = query.shape
    kv_heads, keys = key.shape[1:3]
    # Heads of a group share their keys: no need to repeat those.
    grouped = query.float().reshape(batch, kv_heads, (heads // kv_heads) * queries, width)
    scores = (grouped @ key.float().transpose(-1, -2)).reshape(batch, heads, queries, keys)
    scores *= width**-0.5 if given.scaling is None else given.scaling
    softcap = given.softcap
    if softcap is not None and ("flash" in implementation or "flex" in implementation):
        scores = softcap * torch.tanh(scores / softcap)  # Transformers' sdpa leaves it out
    lowest = torch.finfo(torch.float32).min
    if mask is not None and mask.ndim == 4:
        mask = mask[..., :keys]
        if mask.dtype == torch.bool:
            scores.masked_fill_(~mask, lowest)
        else:
            scores += mask
    else:
        causal = getattr(module, "is_causal", True) if given.is_causal is None else given.is_causal
        rows = torch.arange(keys - queries, keys, device=query.device)
        distance = rows[:, None] - torch.arange(keys, device=query.device)
        if causal:
            scores.masked_fill_(distance < 0, lowest)
        if given.sliding_window is not None:
            scores.masked_fill_(distance >= given.sliding_window, lowest)
        if mask is not None:
            scores.masked_fill_(~mask[:, None, None, :keys].bool(), lowest)
    return scores.softmax(-1).to(query.dtype)


def flat_pattern(
    weights: Float[Tensor, "batch head query key"],
    mask: Int[Tensor, "batch key"],
    length: int,
) -> Float[Tensor, "batch query head_length"]:
    """Patterns of a padded batch as one vector per query token, head after head.

    Args:
        weights: Attention weights.
        mask: 1 for real tokens, padded on either side.
        length: Keys per head, counted from each text's first real token; zeros follow its last.

    Raises:
        DataError: If a text is longer than that.
    """
    batch, heads, queries, keys = weights.shape
    longest = int(mask.sum(dim=1).max())
    if longest > length:
        raise DataError(
            f"A text of {longest} tokens does not fit attention patterns of {length} keys; say how "
            "long the longest text is."
        )
    first = mask.argmax(dim=1)
    if bool(first.any()):  # padded on the left: every text starts elsewhere
        key = first[:, None] + torch.arange(keys, device=mask.device)
        index = key.clamp_max(keys - 1)[:, None, None].expand_as(weights)
        weights = weights.gather(-1, index).masked_fill(key[:, None, None] >= keys, 0)
    flat = weights.new_zeros(batch, queries, heads, length)
    kept = min(keys, length)
    flat[..., :kept] = weights[..., :kept].transpose(1, 2)
    return flat.flatten(2)
