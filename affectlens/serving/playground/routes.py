"""The playground's routes on the local server: the page, and what only a server can look at."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request, Response

from affectlens.serving.playground.about import about_pack, about_server
from affectlens.serving.playground.asked import Look, ReplyBody, TokenBody
from affectlens.serving.playground.companions import Companions, companions_of
from affectlens.serving.playground.page import HEADERS, static_file
from affectlens.serving.request_fields import PACK
from affectlens.steering.pack import SteeringPack

API = "/affectlens/play"

page_router = APIRouter()
"""The page alone, for any server."""


@page_router.get("/play", include_in_schema=False)
@page_router.get("/play/", include_in_schema=False)
def page() -> Response:
    """The page."""
    return _file("index.html")


@page_router.get("/play/static/{name}", include_in_schema=False)
def static(name: str) -> Response:
    """A file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    content, kind = static_file(name)
    return Response(content, media_type=kind, headers=dict(HEADERS))


router = APIRouter()
router.include_router(page_router)


@router.get(f"{API}/about")
def about(request: Request) -> Response:
    """What the page has to know of this server."""
    service: Any = request.app.state.service
    door, first = service.door, service.door.first
    reads = bool(getattr(door.settings, "read", True))
    packs = [about_pack(name, pack, reads=reads) for name, pack in door.packs.items()]
    packs.sort(key=lambda one: one["name"] != first)
    # A notebook's requests come to no server, so there is none to copy requests for.
    address = "" if request.scope.get("server") is None else str(request.base_url).rstrip("/")
    found = about_server("affectlens", service.name, address, packs, inspect=True, token_ids=True)
    return service.json(found)


@router.post(f"{API}/inspect")
async def inspect(request: Request, body: ReplyBody) -> Response:
    """How much steering changed each choice of a reply, how it reads, and its perplexity."""
    service: Any = request.app.state.service
    look = _look(request.app.state, body)
    return service.json(await service.on_model(look.reply))


@router.post(f"{API}/token")
async def token(request: Request, body: TokenBody) -> Response:
    """One token: what its choice was made from, the map of layers and emotions, the writers."""
    service: Any = request.app.state.service
    look = _look(request.app.state, body)
    return service.json(await service.on_model(look.token))


def _look(state: Any, body: ReplyBody) -> Look:
    service = state.service
    name, pack = service.door.pack({} if body.pack is None else {PACK: body.pack})
    prompt = service.encode_chat([turn.model_dump() for turn in body.messages])
    settings = service.door.settings
    beside = _companions(state, pack, settings.packs.get(name))
    return Look(service.engine.model, pack, beside, prompt, body, bool(settings.force))


def _companions(state: Any, pack: SteeringPack, file: str | None) -> Companions:
    """Read once for each pack that is loaded."""
    if not hasattr(state, "companions"):
        state.companions = WeakKeyDictionary[SteeringPack, Companions]()
    if pack not in state.companions:
        state.companions[pack] = companions_of(pack, file)
    return state.companions[pack]
