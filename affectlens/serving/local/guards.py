"""Who is let in at all: the key, the host, the origin, and how much may be sent."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from affectlens.core import AffectLensError
from affectlens.serving.asgi import replayed
from affectlens.serving.local.http_errors import TooLarge, TooSlow, answer
from affectlens.serving.pack_requests import Forbidden, Unauthorized

OPEN_PATHS: tuple[str, ...] = ("/health", "/metrics", "/play")
"""Paths, and what lies below them, that need no key."""

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
PATIENCE = 60.0
"""Seconds within which a body has to arrive."""


@dataclass(frozen=True)
class GuardSettings:
    """What is let in.

    Attributes:
        api_key: What ``Authorization: Bearer`` must give; None: no key is needed.
        local_only: Whether the server must be called by a name of this machine, so that no page
            of the web can reach it by a name of its own (DNS rebinding).
        max_body: Bytes of the largest body.
    """

    api_key: str | None = None
    local_only: bool = True
    max_body: int = 2**20


class Guards:
    """ASGI middleware. It answers what it refuses itself, and hands on bodies that it has read."""

    def __init__(self, app: Any, settings: GuardSettings) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check a request, then hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            self._check(scope["path"], headers)
            body = await self._body(headers, receive)
        except AffectLensError as error:
            await answer(error)(scope, receive, send)
            return
        if body is None:  # gone before all was sent
            return
        await self.app(scope, replayed(body, receive), send)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.settings.local_only and name not in LOCAL_HOSTS:
            raise Forbidden(
                "This server answers on this machine only; call it as 127.0.0.1 or localhost, or "
                "start it with --host 0.0.0.0."
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            raise Forbidden("Pages of other origins may not use this server.")
        key = self.settings.api_key
        if key is None or any(path == one or path.startswith(f"{one}/") for one in OPEN_PATHS):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        fits = secrets.compare_digest(given.strip().encode(), key.encode())
        if scheme.lower() != "bearer" or not fits:
            raise Unauthorized("Give the server's API key: Authorization: Bearer KEY.")

    async def _body(self, headers: Mapping[str, str], receive: Any) -> bytes | None:
        most = self.settings.max_body
        told = headers.get("content-length", "0")
        if told.isdigit() and int(told) > most:
            raise TooLarge(f"The body has {int(told):,} bytes; this server takes {most:,}.")
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise TooLarge(f"The body has more than the {most:,} bytes that are taken.")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise TooSlow("The body did not arrive in time.") from None
