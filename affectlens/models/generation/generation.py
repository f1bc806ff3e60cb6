"""Batched generation: one loop for every arm of every comparison.

Against ``hf.generate`` it saves, on a CPU, the copies of keys and values (`attention`, `kv_cache`),
the prefill of prompts that occur more than once, and the steps of rows that have ended. It gives
the same tokens as ``hf.generate`` on each prompt alone, in float32; in 16-bit formats near ties
depend on the shape of a batch, there as here. Where padding would change a row it is not used; see
`padding`.

Whoever changes the model meanwhile opens `listeners.listening`, and is told which rows each forward
pass holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.models.anatomy.padding import Padding
from affectlens.models.generation.attention import fast_decoding
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.models.generation.listeners import listeners
from affectlens.models.generation.loop import Loop
from affectlens.models.generation.prompt_batches import plan

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

CACHE_BYTES = 2**30
"""Most that keys and values of a batch may take, unless told otherwise."""

__all__ = [
    "CACHE_BYTES",
    "GenerationSettings",
    "encode_prompt",
    "generate",
    "generate_ids",
]


@overload
def generate(  # pyright: ignore[reportOverlappingOverload]
    model: LanguageModel,
    prompt: str,
    settings: GenerationSettings | None = None,
    *,
    system: str | None = None,
    template_variables: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str: ...
@overload
def generate(
    model: LanguageModel,
    prompt: Sequence[str],
    settings: GenerationSettings | None = None,
    *,
    system: str | None = None,
    template_variables: Mapping[str, Any] | None = None,
    **changes: Any,
) -> list[str]: ...
def generate(
    model: LanguageModel,
    prompt: str | Sequence[str],
    settings: GenerationSettings | None = None,
    *,
    system: str | None = None,
    template_variables: Mapping[str, Any] | None = None,
    **changes: Any,
) -> str | list[str]:
    """Reply to one user message, or to several at once.

    Args:
        model: The model.
        prompt: What the user says; the model's chat template is applied.
        settings: Default: `GenerationSettings()`.
        system: System prompt of all of them.
        template_variables: As for `affectlens.load_model`, for these prompts.
        changes: Fields of the settings to change, for example ``max_new_tokens=100``.

    Returns:
        One reply, or a list of them in the order of the prompts.

    Raises:
        DataError: If a setting is invalid or a prompt too long.
    """
    settings = _changed(settings or GenerationSettings(), changes)
    if template_variables:
        model = model.with_template_variables(template_variables)
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    ids = [encode_prompt(model, text, system) for text in texts]
    replies = [
        str(model.tokenizer.decode(list(reply), skip_special_tokens=True)).strip()
        for reply in generate_ids(model, ids, settings)
    ]
    return replies[0] if isinstance(prompt, str) else replies


def encode_prompt(model: LanguageModel, text: str, system: str | None = None) -> tuple[int, ...]:
    """Token ids of a user message in the model's chat template, up to where the reply starts."""
    turns = [{"role": "system", "content": system}] if system is not None else []
    turns.append({"role": "user", "content": text})
    return model.encode_chat(turns, add_generation_prompt=True).ids


def generate_ids(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: GenerationSettings | None = None,
    *,
    max_tokens_per_batch: int | None = None,
    share_prompts: bool = True,
    on_progress: Callable[[int], object] | None = None,
) -> list[tuple[int, ...]]:
    """Continue token ids.

    Args:
        model: The model.
        prompts: Token ids, one row per reply wanted; rows may repeat.
        settings: Default: `GenerationSettings()`.
        max_tokens_per_batch: Upper bound of rows times longest row, reply included. Default: what
            fits into `CACHE_BYTES`.
        share_prompts: Run equal prompts once, as far as no listener touches them.
        on_progress: Called with the number of rows that have just been finished.

    Returns:
        The generated tokens of each row, without the one that ended it. A row shorter than
        ``max_new_tokens`` has ended by itself.

    Raises:
        DataError: If a prompt is empty, or too long for the model with its reply.
        ModelError: If the model's logits are not finite.
    """
    settings = settings or GenerationSettings()
    longest = model.context_length - settings.max_new_tokens
    for row, ids in enumerate(prompts):
        if not 0 < len(ids) <= longest:
            raise DataError(
                f"Prompt {row} has {len(ids)} tokens; with replies of up to "
                f"{settings.max_new_tokens} {model.name} takes 1 to {longest}."
            )
    columns = max((len(ids) for ids in prompts), default=0) + settings.max_new_tokens
    padding = model.padding.upto(columns) if len(prompts) > 1 else Padding()
    heard = listeners(model.hf)
    replies: list[tuple[int, ...]] = [()] * len(prompts)
    noise = _noise(len(prompts), settings)
    batches = plan(
        prompts,
        new_tokens=settings.max_new_tokens,
        max_tokens=max_tokens_per_batch or _tokens_that_fit(model),
        untouched=lambda row, n: min((one.untouched(row, n) for one in heard), default=n),
        share=share_prompts and padding.chunks,
        share_beginnings=padding.between,
        mix_lengths=padding.left,
    )
    try:
        with torch.inference_mode(), fast_decoding(model.hf):
            for batch in batches:
                loop = Loop(model, prompts, batch, settings, heard, noise)
                for row, reply in zip(batch.rows, loop.run(), strict=True):
                    replies[row] = tuple(reply)
                if on_progress is not None:
                    on_progress(len(batch.rows))
    finally:
        for one in heard:
            one.announce((), ())
    return replies


def _tokens_that_fit(model: LanguageModel) -> int:
    anatomy = model.anatomy
    per_token = 2 * anatomy.n_layers * anatomy.n_kv_heads * anatomy.d_head * model.dtype.itemsize
    state = anatomy.d_model * model.dtype.itemsize  # models without keys keep a state
    return max(1, CACHE_BYTES // (per_token or state))


def _changed(settings: GenerationSettings, changes: dict[str, Any]) -> GenerationSettings:
    fields = list(GenerationSettings.__dataclass_fields__)
    for name in changes:
        if name not in fields:
            raise unknown("generation setting", name, fields)
    return replace(settings, **changes)


def _noise(rows: int, settings: GenerationSettings) -> Float[Tensor, "row step"] | None:
    """What sampling draws with: one number per row and step, whatever batch the row is in."""
    if settings.temperature == 0:
        return None
    draws = [
        torch.rand(settings.max_new_tokens, generator=torch.Generator().manual_seed(seed))
        for seed in range(settings.seed, settings.seed + rows)
    ]
    return torch.stack(draws) if draws else None
