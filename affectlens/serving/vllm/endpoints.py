"""Routes under ``/plugins/affectlens``: packs at runtime, and what steering is doing.

An endpoint plug-in of vLLM (group ``vllm.endpoint_plugins``), loaded only where ``VLLM_PLUGINS``
names it. vLLM guards no plug-in's routes with its API key, so these check it themselves.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from affectlens.core import AffectLensError, DataError, UnknownNameError
from affectlens.serving.contract import KEY, ROUTES
from affectlens.serving.door import Conflict
from affectlens.serving.event_route import EventRoute
from affectlens.serving.pack_requests import (
    Forbidden,
    Unauthorized,
    allowed_folder,
    inside,
    read_body,
    read_wait,
)
from affectlens.serving.vllm import pack_management as management

_SCRAPE = "/metrics"
_PATIENCE = 2.0
"""Seconds that a scrape waits for the workers before it shows what it knows."""


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (UnknownNameError, 404),
    (Conflict, 409),
    (AffectLensError, 400),
)


class Endpoints:
    """The plug-in's HTTP side; vLLM makes one per server."""

    name = KEY
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self._front: management.Front | None = None
        self._alone = True
        self._keys: Sequence[str] = ()

    def attach_router(self, app: Any) -> None:
        """Add the routes, and fetch the workers' figures whenever metrics are read."""
        routing: Any = importlib.import_module("starlette.routing")
        for path, method, handler in (
            ("/packs", "GET", self.list_packs),
            ("/packs", "POST", self.load),
            ("/packs/{name}", "DELETE", self.unload),
            ("/state", "GET", self.state),
        ):
            app.router.routes.append(
                routing.Route(ROUTES + path, self._answering(handler), methods=[method])
            )
        app.add_middleware(EventRoute)
        app.add_middleware(_Refreshing, endpoints=self)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Meet the engine."""
        del state
        keys = getattr(args, "api_key", None) or [os.environ.get("VLLM_API_KEY")]
        self._keys = tuple(key for key in keys if key)
        parallel = engine_client.vllm_config.parallel_config
        self._alone = (getattr(args, "api_server_count", None) or 1) == 1 and (
            parallel.data_parallel_size == 1
        )
        try:
            self._front = management.Front.of(engine_client)
        except DataError:  # named in VLLM_PLUGINS, but not configured: the routes say so
            return
        await self.refresh()

    async def list_packs(self, _request: Any) -> Mapping[str, Any]:
        """``GET /packs``."""
        return {"packs": self._known().listing()}

    async def load(self, request: Any) -> Mapping[str, Any]:
        """``POST /packs`` with ``{"name": ..., "path": ...}``."""
        front = self._known()
        name, path, _ = read_body(await request.body())
        folder = allowed_folder(front.door.settings.pack_folder, "loads")
        self._require_alone()
        steps = management.loading(front, name, inside(folder, path))
        return await self._finish(steps)

    async def unload(self, request: Any) -> Mapping[str, Any]:
        """``DELETE /packs/{name}``, with ``?wait=SECONDS`` for requests that still use it."""
        front = self._known()
        allowed_folder(front.door.settings.pack_folder, "unloads")
        self._require_alone()
        seconds = read_wait(request.query_params.get("wait"))
        name = request.path_params["name"]
        await self._finish(management.unloading(front, name, seconds))
        return {"unloaded": name}

    async def state(self, _request: Any) -> Mapping[str, Any]:
        """``GET /state``."""
        front = self._known()
        return await management.run_async(management.reporting(front), front.engine)

    async def refresh(self) -> None:
        """Bring the workers' figures into the metrics, if they answer soon."""
        if self._front is None or getattr(self._front.engine, "errored", False):
            return
        steps = management.reporting(self._front)
        try:
            await asyncio.wait_for(
                management.run_async(steps, self._front.engine), timeout=_PATIENCE
            )
        except TimeoutError:
            return

    async def _finish(self, steps: management.Steps[Any]) -> Any:
        """A change that was begun is finished, whether or not its client is still there."""
        front = self._known()
        return await asyncio.shield(
            asyncio.ensure_future(management.run_async(steps, front.engine))
        )

    def _known(self) -> management.Front:
        if self._front is None:
            raise DataError(
                "This server has no steering pack; start it with "
                '--additional-config \'{"affectlens": {"packs": "pack.safetensors"}}\'.'
            )
        return self._front

    def _require_alone(self) -> None:
        if not self._alone:
            raise Conflict(
                "Packs are loaded and unloaded at runtime only where one process serves clients "
                "(--api-server-count 1) and data is not parallel; name them when you start."
            )

    def _answering(self, handler: Any) -> Any:
        """A handler whose errors are sentences with a status."""

        respond: Any = importlib.import_module("starlette.responses").JSONResponse

        async def route(request: Any) -> Any:
            try:
                self._authorise(request.headers.get("authorization", ""))
                return respond(await handler(request))
            except AffectLensError as error:
                status = next(code for kind, code in _STATUS if isinstance(error, kind))
                body = {"message": str(error), "type": type(error).__name__, "code": status}
                return respond({"error": body}, status_code=status)

        return route

    def _authorise(self, header: str) -> None:
        if not self._keys:
            return
        scheme, _, token = header.partition(" ")
        given = token.encode()
        fits = [secrets.compare_digest(given, key.encode()) for key in self._keys]
        if scheme.lower() != "bearer" or not any(fits):
            raise Unauthorized("Give the server's API key: Authorization: Bearer KEY.")


class _Refreshing:
    """ASGI middleware: workers are asked for their figures when metrics are read, not before."""

    def __init__(self, app: Any, endpoints: Endpoints) -> None:
        self.app, self.endpoints = app, endpoints

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith(_SCRAPE):
            await self.endpoints.refresh()
        await self.app(scope, receive, send)
