"""Special tokens that tokenizers and configs disagree about."""

from __future__ import annotations

from typing import Any

from affectlens.core import ModelError
from affectlens.models.chat.chats import render

_PROBE = "affectlens"


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that the chat template puts after what the assistant said; None without template.

    Tokenizers converted from GGUF sometimes name another token (``<|im_start|>``) as the end.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
    try:
        rendered = render(tokenizer, messages, add_generation_prompt=False)
    except ModelError:  # templates are programs of others and may refuse anything
        return None
    tail = rendered.text[rendered.spans["reply"][1] :].lstrip()
    specials = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    ends = [token for token in specials if token and tail.startswith(token)]
    return int(tokenizer.convert_tokens_to_ids(max(ends, key=len))) if ends else None


def stop_ids(hf: Any, tokenizer: Any) -> tuple[int, ...]:
    """Every token that ends a reply: of the chat template, the tokenizer, the generation config."""
    configured = getattr(getattr(hf, "generation_config", None), "eos_token_id", None)
    listed = list(configured) if isinstance(configured, (list, tuple)) else [configured]
    candidates = [end_of_turn(tokenizer), tokenizer.eos_token_id, *listed]
    return tuple(dict.fromkeys(int(i) for i in candidates if i is not None))
