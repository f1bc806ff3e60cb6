"""Clients that ask for what vLLM would silently drop: told so before it happens."""

from __future__ import annotations

import functools
from typing import Any

from affectlens.serving.contract import KEY
from affectlens.serving.request_fields import READ
from affectlens.serving.vllm.front_door import Refused


def looking(to_sampling_params: Any) -> Any:
    """Wrapper of a protocol class's method; vLLM ignores fields of a body that it does not know."""

    @functools.wraps(to_sampling_params)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_misplaced(self)
        prompts = getattr(self, "prompt", None)
        if isinstance(prompts, list) and len(prompts) > 1 and not isinstance(prompts[0], int):
            refuse_readings(self)
        return to_sampling_params(self, *args, **kwargs)

    return wrapper


def refuse_misplaced(request: Any) -> None:
    """Refuse a body with our names beside ``vllm_xargs``.

    Raises:
        Refused: Naming the field.
    """
    for name in getattr(request, "model_extra", None) or ():
        if name.startswith(KEY):
            raise Refused(
                f"{name} must be inside vllm_xargs, as in "
                f'"vllm_xargs": {{"{KEY}": "anger=0.8"}}; beside it, it would be ignored.'
            )


def refuse_readings(request: Any) -> None:
    """Refuse a request for several replies that wants readings: vLLM passes on those of one.

    Raises:
        Refused: If it does.
    """
    extra = getattr(request, "model_extra", None) or {}
    given = getattr(request, "vllm_xargs", None) or extra.get("vllm_xargs") or {}
    if READ in given:
        raise Refused(f"{READ} gives the readings of one reply: send one prompt per request.")


def splitting(to_chat_completion_request: Any) -> Any:
    """Wrapper of the batch protocol's method."""

    @functools.wraps(to_chat_completion_request)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_misplaced(self)
        refuse_readings(self)
        return to_chat_completion_request(self, *args, **kwargs)

    return wrapper
