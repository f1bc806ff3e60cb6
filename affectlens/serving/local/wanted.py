"""From the body of a request to the replies that are wanted."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, cast

from affectlens.core import DataError
from affectlens.core.utf8 import require_utf8
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.serving.local.generation import Generation
from affectlens.serving.local.refused_fields import check_other_fields
from affectlens.serving.local.request_body import (
    MAX_STOPS,
    ChatBody,
    CompletionBody,
    Message,
    TextBody,
)
from affectlens.serving.local.service import Service

COMPLETION_TOKENS = 16
"""What a completion gets that does not say; OpenAI's number."""

COLDEST = 0.01
"""Lowest temperature above 0; below it logits overflow."""


def wanted(service: Service, body: TextBody) -> list[Generation]:
    """The replies that a body asks for, prompt after prompt.

    Args:
        service: The server.
        body: A `ChatBody` or a `CompletionBody`.

    Raises:
        AffectLensError: In a sentence, if it cannot be served.
    """
    service.require_model(body.model)
    check_other_fields(body)
    steered = service.understand(body.vllm_xargs or {}, body.steering)
    prompts = _prompts(service, body)
    n = body.n or 1
    replies = len(prompts) * n
    if steered is not None and steered.read:
        service.refuse_readings(replies)
    most = service.engine.limits.replies
    if replies > most:
        raise DataError(f"{replies} replies are asked for at once; this server gives {most}.")
    seed = secrets.randbits(48) if body.seed is None else body.seed
    stop, logprobs = _stops(body.stop), _logprobs(body)
    found = [
        Generation(
            prompts[i // n],
            _settings(service, body, len(prompts[i // n]), seed + i),
            steered,
            stop,
            logprobs,
            bool(body.ignore_eos),
        )
        for i in range(replies)
    ]
    service.admit(steered)
    return found


def _prompts(service: Service, body: TextBody) -> list[tuple[int, ...]]:
    if isinstance(body, ChatBody):
        turns = [_turn(message) for message in body.messages]
        return [service.encode_chat(turns, body.chat_template_kwargs)]
    prompt: Any = cast("CompletionBody", body).prompt
    if isinstance(prompt, str):
        return [service.encode_text(prompt)]
    if not prompt:
        raise DataError("prompt is empty; give a text, or token ids.")
    if isinstance(prompt[0], int):
        return [tuple(cast("Sequence[int]", prompt))]
    return [
        service.encode_text(one) if isinstance(one, str) else tuple(cast("Sequence[int]", one))
        for one in cast("Sequence[Any]", prompt)
    ]


def _turn(message: Message) -> Mapping[str, Any]:
    content: Any = message.content
    if (message.model_extra or {}).get("tool_calls"):
        raise DataError("Messages with tool_calls are not served here; send texts.")
    if isinstance(content, list):
        parts = cast("list[Mapping[str, Any]]", content)
        if all(part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts):
            content = "".join(str(part["text"]) for part in parts)
    if isinstance(content, str):
        require_utf8("The message", content)
    role = require_utf8("The role", message.role)
    return {"role": "system" if role == "developer" else role, "content": content}


def _settings(service: Service, body: TextBody, length: int, seed: int) -> GenerationSettings:
    temperature = 1.0 if body.temperature is None else body.temperature
    if 0 < temperature < COLDEST:
        raise DataError(f"temperature must be 0 or at least {COLDEST}, not {temperature}.")
    most = body.max_tokens
    if isinstance(body, ChatBody) and body.max_completion_tokens is not None:
        most = body.max_completion_tokens
    if most is None:
        usual = COMPLETION_TOKENS
        if isinstance(body, ChatBody):
            usual = service.engine.limits.reply
        # A prompt that is too long is refused by the engine, which says how long it may be.
        most = max(1, min(usual, service.engine.limits.reply, service.engine.longest - length))
    return GenerationSettings(
        max_new_tokens=most,
        min_new_tokens=body.min_tokens or 0,
        repetition_penalty=body.penalty,
        temperature=temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=seed,
    )


def _stops(given: str | list[str] | None) -> tuple[str, ...]:
    found = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    if len(found) > MAX_STOPS or not all(found):
        raise DataError(f"stop takes up to {MAX_STOPS} strings, none of them empty.")
    return tuple(require_utf8("The stop string", one) for one in found)


def _logprobs(body: TextBody) -> int | None:
    if isinstance(body, CompletionBody):
        return body.logprobs
    assert isinstance(body, ChatBody)
    if body.logprobs:
        return body.top_logprobs or 0
    if body.top_logprobs:
        raise DataError("top_logprobs needs logprobs: true beside it.")
    return None
