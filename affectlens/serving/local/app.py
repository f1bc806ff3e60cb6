"""The app of a local server: routes, errors and guards put together."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from affectlens.serving.event_route import EventRoute
from affectlens.serving.local.guards import Guards
from affectlens.serving.local.http_errors import add_handlers
from affectlens.serving.local.service import Service

ROUTERS: tuple[str, ...] = (
    "affectlens.serving.local.text_routes:router",
    "affectlens.serving.local.pack_routes:router",
    "affectlens.serving.playground.routes:router",
)
"""Every router, as ``module:name``. A handler finds the server in ``request.app.state.service``."""


def build_app(service: Service) -> FastAPI:
    """An ASGI app that serves.

    Args:
        service: The server's parts; its engine has to be started by the caller.
    """
    # Its pages of documentation would load scripts from the network.
    app = FastAPI(title="AffectLens", version=_version(), docs_url=None, redoc_url=None)
    app.state.service = service
    for name in ROUTERS:
        module, _, attribute = name.partition(":")
        app.include_router(getattr(import_module(module), attribute))
    add_handlers(app)
    app.add_middleware(EventRoute)
    app.add_middleware(Guards, settings=service.settings.guards)
    return app


def _version() -> str:
    try:
        return version("affectlens")
    except PackageNotFoundError:  # run from sources
        return "0"
