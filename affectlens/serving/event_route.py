"""``/v1/affectlens/events``: the emotion stream of a reply as JSON lines, from either server.

The route is the server's own chat, asked to read along: its chunks become events on their way out,
so whatever guards, limits and refuses a chat does so here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from affectlens.core import DataError
from affectlens.core.jsonl import json_line
from affectlens.serving.asgi import replayed
from affectlens.serving.contract import KEY
from affectlens.serving.emotion_events import EventReader, chat_body, read_along

EVENTS_ROUTE = f"/v1/{KEY}/events"
_CHAT = "/v1/chat/completions"
_TOKENS = 60
_OPTIONS = ("prompt", "emotion", "pack", "max_tokens", "layer", "model")


class EventRoute:
    """ASGI middleware that turns a request for events into one for a chat, and its reply back.

    ``GET ?prompt=…&emotion=anger=1&pack=…&max_tokens=60&layer=…&model=…``, or ``POST`` the body of
    a chat request, with ``?layer=…``.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request for events; hand on all others."""
        root = scope.get("root_path", "")
        if scope["type"] != "http" or scope["path"].rstrip("/") != root + EVENTS_ROUTE:
            await self.app(scope, receive, send)
            return
        try:
            given = _options(scope["query_string"])
            layer = _whole("layer", given.pop("layer", None), least=0)
            if scope["method"] == "GET":
                body = _asked(given)
            elif scope["method"] == "POST":
                body = _body(await _read(receive), given)
            else:
                await _refuse(send, 405, f"Use GET or POST for {EVENTS_ROUTE}.")
                return
        except DataError as error:
            await _refuse(send, 400, str(error))
            return
        content = json.dumps(body).encode()
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"content-length", b"content-type", b"transfer-encoding")
        ]
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        chat = {
            **scope,
            "method": "POST",
            "path": root + _CHAT,
            "raw_path": (root + _CHAT).encode(),
            "query_string": b"",
            "headers": headers,
        }
        await self.app(chat, replayed(content, receive), _Events(send, layer))


class _Events:
    """A ``send`` that makes lines of events of a stream of chunks.

    The status is held back until the first event is there: what goes wrong before it is told by the
    status, what goes wrong later by a last line ``{"error": …}``.
    """

    def __init__(self, send: Any, layer: int | None) -> None:
        self._send, self._reader = send, EventReader(layer=layer)
        self._start: Any = None
        self._plain = self._begun = self._over = False
        self._rest = b""

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self._plain = b"event-stream" not in headers.get(b"content-type", b"")
            self._start = message
            if self._plain:  # a refusal
                await self._send(message)
        elif self._plain or message["type"] != "http.response.body":
            await self._send(message)
        elif not self._over:
            await self._turn(message)

    async def _turn(self, message: Any) -> None:
        more = message.get("more_body", False)
        *lines, self._rest = (self._rest + message.get("body", b"")).split(b"\n")
        if not more:
            lines, self._rest = [*lines, self._rest], b""
        text = ""
        try:
            for line in lines:
                for event in self._reader.feed(line.decode("utf-8", "replace")):
                    text += json_line(event.to_dict()) + "\n"
            if not more:
                self._reader.finish()
        except DataError as error:
            self._over = True
            if not self._begun and not text:
                await _refuse(self._send, 400, str(error))
                return
            text += json_line({"error": {"message": str(error)}}) + "\n"
            more = False
        if text or not more:
            await self._write(text, more)

    async def _write(self, text: str, more: bool) -> None:
        if not self._begun:
            self._begun = True
            kept = [
                (name, value)
                for name, value in self._start["headers"]
                if name not in (b"content-type", b"content-length")
            ]
            headers = [*kept, (b"content-type", b"application/x-ndjson")]
            await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})


def _options(query: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in _OPTIONS:
            raise DataError(f"Unknown option {name!r}; use {', '.join(_OPTIONS)}.")
        if name in found:
            raise DataError(f"Give {name} once.")
        found[name] = value
    return found


def _asked(given: Mapping[str, str]) -> dict[str, Any]:
    if not given.get("prompt"):
        raise DataError(f"Give what the user says: {EVENTS_ROUTE}?prompt=...")
    messages = [{"role": "user", "content": given["prompt"]}]
    body = chat_body(messages, spec=given.get("emotion"), pack=given.get("pack"))
    named = {"model": given["model"]} if "model" in given else {}
    tokens = _whole("max_tokens", given.get("max_tokens"), least=1)
    return {**named, **body, "max_tokens": _TOKENS if tokens is None else tokens}


def _body(content: bytes, given: Mapping[str, str]) -> dict[str, Any]:
    if given:
        raise DataError(f"With POST {next(iter(given))} stands in the body.")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("vllm_xargs") or {}, dict):
        raise DataError("The body is a chat request as JSON, with messages.")
    if body.get("n") not in (None, 1):
        raise DataError("Events are of one reply; leave n out.")
    return read_along(body)


def _whole(name: str, text: str | None, *, least: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= least and len(text) <= 9):
        raise DataError(f"{name} must be a whole number from {least} on, not {text[:40]!r}.")
    return int(text)


async def _read(receive: Any) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _refuse(send: Any, status: int, sentence: str) -> None:
    content = json.dumps({"error": {"message": sentence, "type": "DataError", "code": status}})
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content.encode(), "more_body": False})
