"""The page before a server somewhere else: its own address, and everything asked passed on.

The page may talk to its own address alone, and the other server lets no foreign page in; so what
it asks goes through here. Another local server can be looked into; a vLLM server only tells what
its plug-in tells, and the page leaves out the rest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from affectlens.core import AffectLensError, DataError
from affectlens.serving.contract import PACKS_ROUTE
from affectlens.serving.local.guards import Guards, GuardSettings
from affectlens.serving.local.http_errors import Json, add_handlers
from affectlens.serving.playground.about import about_listed, about_server
from affectlens.serving.playground.routes import API, page_router

_PASSED = ("content-type", "retry-after")
_TIMEOUT = httpx.Timeout(10.0, read=600.0)


class Unreachable(AffectLensError):
    """A server that does not answer."""


def build_remote(url: str, api_key: str | None = None, *, local_only: bool = True) -> FastAPI:
    """The page, and a way to a server.

    Args:
        url: Where that server is: ``http://host:port``.
        api_key: Its key; the page is never told.
        local_only: Whether the page is for this machine alone.

    Raises:
        DataError: If it is no such address.
    """
    root = checked_url(url)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        client = httpx.AsyncClient(
            base_url=root, headers=headers, timeout=_TIMEOUT, trust_env=False
        )
        async with client:
            app.state.upstream = client
            yield

    app = FastAPI(title="AffectLens playground", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(page_router)
    add_handlers(app)
    app.add_middleware(Guards, settings=GuardSettings(local_only=local_only))

    @app.get(f"{API}/about")
    async def about() -> Response:
        return Json(await about_upstream(app.state.upstream, root))

    @app.api_route("/v1/{path:path}", methods=["GET", "POST"])
    async def text(path: str, request: Request) -> Response:
        return await _pass_on(app.state.upstream, request, f"/v1/{path}")

    @app.post(API + "/{path}")
    async def look(path: str, request: Request) -> Response:
        return await _pass_on(app.state.upstream, request, f"{API}/{path}")

    return app


def checked_url(url: str) -> str:
    """An address without what does not belong to it.

    Raises:
        DataError: If it is none.
    """
    try:
        parsed = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise DataError(f"{url!r} is no address of a server; write http://127.0.0.1:8000.")
    path = parsed.path.removesuffix("/v1") or "/"
    return str(parsed.copy_with(path=path, query=None)).rstrip("/")


async def about_upstream(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    """What a server can do: as it tells itself, or from vLLM's listings.

    Raises:
        Unreachable: If it does not answer.
        DataError: If it does not steer.
    """
    own = await _get(client, f"{API}/about")
    if own.status_code == 200:
        return {**own.json(), "address": address}
    if own.status_code == 401:
        raise DataError(f"{address} wants its API key; start the playground with --api-key.")
    models, packs = await _get(client, "/v1/models"), await _get(client, PACKS_ROUTE)
    try:
        model = str(models.json()["data"][0]["id"])
        listed = [about_listed(one) for one in packs.json()["packs"]]
    except (KeyError, IndexError, TypeError, ValueError):
        listed, model = [], ""
    if not listed:
        raise DataError(
            f"{address} does not say that it steers ({models.status_code}, {packs.status_code}); "
            "start it with affectlens serve, and look with affectlens serve --check."
        )
    return about_server("vllm", model, address, listed)


async def _get(client: httpx.AsyncClient, path: str) -> httpx.Response:
    try:
        return await client.get(path)
    except httpx.HTTPError as error:
        raise Unreachable(
            f"{client.base_url} does not answer ({type(error).__name__}); is the server running?"
        ) from error


async def _pass_on(client: httpx.AsyncClient, request: Request, path: str) -> Response:
    """A request and its answer, piece by piece; the other server is told when the client goes."""
    body = await request.body()
    asked = client.build_request(
        request.method, path, content=body, headers={"Content-Type": "application/json"}
    )
    try:
        answer = await client.send(asked, stream=True)
    except httpx.HTTPError as error:
        raise Unreachable(
            f"{client.base_url} does not answer ({type(error).__name__}); is the server running?"
        ) from error

    async def pieces() -> AsyncIterator[bytes]:
        try:
            async for piece in answer.aiter_bytes():
                yield piece
        except httpx.HTTPError:
            said = {"error": {"message": "The server broke off."}}
            yield f"\ndata: {json.dumps(said)}\n\n".encode()
        finally:
            await answer.aclose()

    headers = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
    return StreamingResponse(pieces(), status_code=answer.status_code, headers=headers)


def check_upstream(url: str, api_key: str | None) -> None:
    """Ask a server once, so that what is wrong is said before a page is shown.

    Raises:
        AffectLensError: As `about_upstream`.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def ask() -> None:
        root = checked_url(url)
        async with httpx.AsyncClient(
            base_url=root, headers=headers, timeout=_TIMEOUT, trust_env=False
        ) as client:
            await about_upstream(client, root)

    asyncio.run(ask())
