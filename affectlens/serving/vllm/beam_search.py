"""Beam search: vLLM makes each of its steps a request of its own, with parameters of its own.

So the spec has to travel with the prompt instead. And what a step calls its prompt holds what was
generated before it, so the length of the real prompt travels too: positions are counted from there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from affectlens.core.errors import unknown
from affectlens.serving.contract import KEY
from affectlens.serving.request_fields import PACK, PROMPT, READ, extra_args
from affectlens.serving.vllm.client_checks import refuse_misplaced
from affectlens.serving.vllm.front_door import Refused


def keeping(to_beam_search_params: Any) -> Any:
    """Wrapper of a protocol class's method, which would drop ``vllm_xargs``."""

    @functools.wraps(to_beam_search_params)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_misplaced(self)
        params = to_beam_search_params(self, *args, **kwargs)
        params.extra_args = ours(getattr(self, "vllm_xargs", None))
        return params

    return wrapper


def searching(beam_search: Any) -> Any:
    """Wrapper of the server's ``beam_search``: the spec goes from parameters to prompt."""

    @functools.wraps(beam_search)
    def wrapper(self: Any, prompt: Any, request_id: str, params: Any, *a: Any, **k: Any) -> Any:
        prompt = with_spec(prompt, ours(extra_args(params)))
        return beam_search(self, prompt, request_id, params, *a, **k)

    return wrapper


def searching_offline(beam_search: Any) -> Any:
    """Wrapper of ``LLM.beam_search``; the spec is in ``params.extra_args``, set by hand."""

    @functools.wraps(beam_search)
    def wrapper(self: Any, prompts: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        given = ours(extra_args(params))
        return beam_search(_Preparing(self, given), prompts, params, *args, **kwargs)

    return wrapper


class _Preparing:
    """An ``LLM`` whose prepared prompts carry a spec."""

    def __init__(self, llm: Any, given: Mapping[str, Any]) -> None:
        self._llm, self._given = llm, given

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def _preprocess_cmpl(self, *args: Any, **kwargs: Any) -> Any:
        prompts = self._llm._preprocess_cmpl(*args, **kwargs)
        return [with_spec(prompt, self._given) for prompt in prompts]


def ours(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Our part of free arguments.

    Raises:
        Refused: If readings are asked for, which no beam keeps.
    """
    found = {name: value for name, value in (given or {}).items() if name.startswith(KEY)}
    if READ in found:
        raise Refused(f"Beam search gives no readings; leave {READ} out, or use_beam_search.")
    return found


def with_spec(prompt: Any, given: Mapping[str, Any]) -> Any:
    """A prepared prompt that carries a spec."""
    return {**prompt, KEY: dict(given)} if given else prompt


def continuing(get_prompt: Any) -> Any:
    """Wrapper of a beam's ``get_prompt``: its next request keeps the spec and the real prompt."""

    @functools.wraps(get_prompt)
    def wrapper(self: Any) -> Any:
        first = self.orig_prompt
        inner = first["decoder_prompt"] if first["type"] == "enc_dec" else first
        known = {**first.get(KEY, {}), PROMPT: len(inner["prompt_token_ids"])}
        return {**get_prompt(self), KEY: known}

    return wrapper


def carried(prompt: Any, params: Any) -> Any:
    """Sampling parameters with what the prompt of a beam carries.

    Raises:
        Refused: If a client tries to say how long its prompt is.
    """
    if PROMPT in extra_args(params):
        raise Refused(str(unknown("steering option", PROMPT, (KEY, PACK, READ))))
    found = prompt.get(KEY) if isinstance(prompt, Mapping) else None
    if not found:
        return params
    changed = params.clone()
    changed.extra_args = {**extra_args(params), **found}
    return changed
