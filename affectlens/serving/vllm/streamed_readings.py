"""Readings in streamed HTTP replies: the chunk with a token's text also has its readings."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator
from typing import Any

from affectlens.core.jsonl import json_line
from affectlens.serving.contract import KEY
from affectlens.serving.reply_readings import joined
from affectlens.serving.request_fields import READ

_DATA = "data: "


class Passing:
    """Watches the outputs that a stream is made of, and adds their readings to its chunks."""

    def __init__(self) -> None:
        self.waiting: Any = None

    async def watch(self, outputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The same outputs."""
        async for item in outputs:
            output = item[1] if isinstance(item, tuple) else item
            report = (getattr(output, "kv_transfer_params", None) or {}).get(KEY)
            self.waiting = joined(self.waiting, report)
            yield item

    def into(self, chunk: str) -> str:
        """A chunk with what is waiting, if it carries text or ends the reply."""
        if self.waiting is None or not chunk.startswith(_DATA + "{"):
            return chunk
        body = json.loads(chunk.removeprefix(_DATA))
        if not any(_carries(choice) for choice in body.get("choices") or ()):
            return chunk
        body[KEY], self.waiting = self.waiting, None
        return f"{_DATA}{json_line(body)}\n\n"  # many clients split events by str.splitlines


def _carries(choice: Any) -> bool:
    delta = choice.get("delta") or {}
    text = choice.get("text") or delta.get("content") or delta.get("reasoning")
    return bool(text) or choice.get("finish_reason") is not None


def with_readings(stream: Any) -> Any:
    """Wrapper of a serving class's stream generator."""

    @functools.wraps(stream)
    async def stream_generator(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if not (getattr(request, "vllm_xargs", None) or {}).get(READ):
            async for chunk in stream(self, request, *args, **kwargs):
                yield chunk
            return
        passing = Passing()

        def watched(value: Any) -> Any:
            return passing.watch(value) if hasattr(value, "__aiter__") else value

        args = tuple(watched(value) for value in args)
        kwargs = {name: watched(value) for name, value in kwargs.items()}
        async for chunk in stream(self, request, *args, **kwargs):
            yield passing.into(chunk)

    return stream_generator
