"""Fields of OpenAI's and vLLM's bodies that are not served: passed over if they do nothing.

A field that would change the text must not be ignored without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.serving.contract import KEY
from affectlens.serving.local.request_body import TextBody

HARMLESS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
    | {"prompt_cache_retention", "parallel_tool_calls", "request_id", "priority", "cache_salt"}
)
"""They change no text."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_k": (0, -1),
    "min_p": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "web_search_options": (),
    "best_of": (1,),
    "suffix": ("",),
    "echo": (False,),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "prompt_logprobs": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "add_special_tokens": (),
    "include_stop_str_in_output": (False,),
    "return_tokens_as_token_ids": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "structured_outputs": (),
    "guided_json": (),
    "truncate_prompt_tokens": (),
}
"""Fields that would change the text, and the values with which they do not; null never does."""

HARMLESS_OF_STREAMS = ("include_obfuscation",)
"""Of ``stream_options``: padding against eavesdroppers, which a client may miss."""

_INSTEAD: Mapping[str, str] = {
    "frequency_penalty": "use repetition_penalty",
    "presence_penalty": "use repetition_penalty",
    "top_k": "use top_p",
    "min_p": "use top_p",
    "best_of": "ask for n replies",
    "reasoning_effort": 'use "chat_template_kwargs": {"reasoning_effort": …}',
}


def check_other_fields(body: TextBody) -> None:
    """Refuse what would be ignored though it matters.

    Raises:
        DataError: Naming the field, and what to use in its place.
        UnknownNameError: If nobody knows the field.
    """
    options = body.stream_options
    for name, value in ((options and options.model_extra) or {}).items():
        if value and name not in HARMLESS_OF_STREAMS:
            raise DataError(f"stream_options.{name} is not served here; leave it out.")
    for name, value in (body.model_extra or {}).items():
        if name in HARMLESS or value is None:
            continue
        if name in NEUTRAL:
            if any(value == one for one in NEUTRAL[name]):
                continue
            instead = _INSTEAD.get(name, "leave it out")
            raise DataError(f"{name} is not served here; {instead}.")
        if name.startswith(KEY):
            raise DataError(
                f"{name} must be inside vllm_xargs, as in "
                f'"vllm_xargs": {{"{KEY}": "anger=0.8"}}; beside it, it would be ignored.'
            )
        raise unknown("request field", name, type(body).model_fields)
