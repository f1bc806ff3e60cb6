"""The local server's routes without a server: requests that come some other way than HTTP.

A notebook's widget talks to its kernel in messages. Each of its requests is given to the same ASGI
app that a server runs, on a thread with a loop of its own, and what the app sends goes back in
messages as it comes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

Send = Callable[[Mapping[str, Any]], None]


class AsgiBridge:
    """Runs an app for messages.

    A request is ``{"id", "method", "path", "body"}`` (the body as text or null), or
    ``{"id", "cancel": true}``. Answers are ``{"id", "status"}``, then ``{"id", "text"}`` as often
    as there is some, then ``{"id", "end": true}``.

    Args:
        app: An ASGI app.
        send: Takes answers; called on the bridge's thread.
    """

    def __init__(self, app: Any, send: Send) -> None:
        self._app, self._send = app, send
        self._loop = asyncio.new_event_loop()
        self._gone: dict[str, asyncio.Event] = {}
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="affectlens-widget", daemon=True
        )
        self._thread.start()

    def receive(self, message: Mapping[str, Any]) -> None:
        """Take a message; returns at once."""
        name = str(message.get("id", ""))
        if message.get("cancel"):
            self._loop.call_soon_threadsafe(self._cancel, name)
            return
        asyncio.run_coroutine_threadsafe(self._answer(name, message), self._loop)

    def close(self) -> None:
        """Let all requests end as if their clients had gone, then stop."""

        def stop() -> None:
            for gone in self._gone.values():
                gone.set()
            self._loop.call_later(0.5, self._loop.stop)

        self._loop.call_soon_threadsafe(stop)
        self._thread.join(timeout=5)

    def _cancel(self, name: str) -> None:
        if name in self._gone:
            self._gone[name].set()

    async def _answer(self, name: str, message: Mapping[str, Any]) -> None:
        gone = self._gone[name] = asyncio.Event()
        body = (message.get("body") or "").encode()
        given = False

        async def receive() -> Mapping[str, Any]:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(event: Mapping[str, Any]) -> None:
            if gone.is_set():
                raise OSError("The client has gone.")  # what a server says to an app
            if event["type"] == "http.response.start":
                self._send({"id": name, "status": event["status"]})
            elif event.get("body"):
                self._send({"id": name, "text": event["body"].decode("utf-8", "replace")})

        try:
            await self._app(_scope(message), receive, send)
        except Exception as error:
            if not gone.is_set():
                said = {"error": {"message": f"{type(error).__name__}: {error}"}}
                self._send({"id": name, "status": 500})
                self._send({"id": name, "text": json.dumps(said)})
        finally:
            self._gone.pop(name, None)
            self._send({"id": name, "end": True})


def _scope(message: Mapping[str, Any]) -> dict[str, Any]:
    path = str(message.get("path", "/"))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": str(message.get("method", "GET")),
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": None,
        "server": None,
        "state": {},
    }
