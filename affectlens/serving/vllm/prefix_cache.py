"""Prefix cache: blocks of keys and values are shared only by requests that steered them alike.

A block changes with steering from the first steered position on; blocks before that are the same
for everybody and stay shared (so steering what is generated leaves prompts shared). Hashes are
chained, so a key on every block that ends after that position separates all that follow.
"""

from __future__ import annotations

from typing import Any

from affectlens.serving.request_fields import BY_TOKEN, Asked
from affectlens.steering.positions import interval


def block_key(request: Any, end: int) -> tuple[str, str] | None:
    """What must be part of a block's hash; None if steering does not change the block.

    Args:
        request: vLLM's scheduler-side request.
        end: One past the block's last token.
    """
    asked = Asked.of(getattr(request, "sampling_params", None))
    if asked is None or not asked.spec:
        return None
    prompt = int(request.num_prompt_tokens) if asked.prompt is None else asked.prompt
    start, stop = interval(asked.positions, prompt)
    if not start < min(end, stop):
        return None
    # The same tokens may be prompt in one request and reply in another, or a longer prompt: which
    # of them were steered is part of the key.
    bounds = f"{start}" if stop >= end else f"{start}-{stop}"
    if asked.key.endswith(BY_TOKEN):
        bounds += f":{prompt}"
    return ("affectlens", f"{asked.key}:{bounds}")
