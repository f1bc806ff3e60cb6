"""Packs at runtime, health and figures: the routes that are not for text."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse

from affectlens.core import DataError
from affectlens.serving.contract import PACKS_ROUTE, STATE_ROUTE
from affectlens.serving.door import Conflict, require_name
from affectlens.serving.local.request_body import PackBody
from affectlens.serving.local.service import Service
from affectlens.serving.pack_requests import allowed_folder, inside, read_body, read_wait
from affectlens.steering.pack import SteeringPack

router = APIRouter()
_PAUSE = 0.05
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PackBody.model_json_schema()}},
    }
}


@router.get(PACKS_ROUTE, response_model=None)
async def packs(request: Request) -> Response:
    """What requests can name, the default first."""
    service: Service = request.app.state.service
    return service.json({"packs": service.door.listing()})


@router.post(PACKS_ROUTE, response_model=None, openapi_extra=_BODY)
async def load(request: Request) -> Response:
    """Load a pack from the operator's folder; with ``replace``, in the place of another.

    Replies that are being written are finished with the pack they began with.
    """
    service: Service = request.app.state.service
    door = service.door
    name, path, options = read_body(await request.body(), ["replace"])
    replaces = options.get("replace", False)
    if not isinstance(replaces, bool):
        raise DataError(f"replace must be true or false, not {replaces!r}.")
    file = inside(allowed_folder(door.settings.pack_folder, "loads"), path)
    with door.changing():
        if replaces and name in door.packs:
            require_name(name)
        else:
            door.require_new(name)

        def read() -> SteeringPack:
            return SteeringPack.load(file, service.engine.model, force=door.settings.force)

        pack = await run_in_threadpool(read)
        if replaces and name == door.first and door.default is not None:
            pack.resolve(door.default)  # which every request without a spec means
        door.open(name, pack)
    service.metrics.steering.packs(len(door.packs))
    return service.json(door.described(name, pack))


@router.delete(PACKS_ROUTE + "/{name}", response_model=None)
async def unload(name: str, request: Request) -> Response:
    """Let no new request name a pack, and wait (``?wait=SECONDS``) for those that use it."""
    service: Service = request.app.state.service
    door = service.door
    allowed_folder(door.settings.pack_folder, "unloads")
    seconds = read_wait(request.query_params.get("wait"))
    with door.changing():
        door.require_unloadable(name)
        pack = door.close(name)
        try:
            await _until_unused(service, name, seconds)
        except BaseException:
            door.open(name, pack)
            raise
    service.metrics.steering.packs(len(door.packs))
    return service.json({"unloaded": name})


@router.get(STATE_ROUTE, response_model=None)
async def state(request: Request) -> Response:
    """What is being done."""
    service: Service = request.app.state.service
    door, now = service.door, service.engine.state()
    users = {name: service.engine.users(name) for name in door.packs}
    known: dict[str, Any] = {
        "default": door.default,
        "requests_steered": service.admitted,
        "requests_refused": service.refused,
        "tokens_steered": now["steered_tokens"],
        "slots_in_use": now["slots_in_use"],
        "slots": now["slots"],
        "packs": users,
        "workers": [now],
    }
    return service.json(known)


@router.get("/health", response_model=None)
async def health() -> Response:
    """Answers while the server does."""
    return Response(status_code=200)


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    service: Service = request.app.state.service
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


async def _until_unused(service: Service, name: str, seconds: float) -> None:
    start = time.monotonic()
    while left := service.engine.users(name):
        if time.monotonic() - start >= seconds:
            raise Conflict(
                f"Pack {name} is still used ({left} {'request' if left == 1 else 'requests'} under "
                "way); try again later, or wait longer."
            )
        await asyncio.sleep(_PAUSE)
