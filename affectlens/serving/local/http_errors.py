"""Errors as OpenAI's clients expect them, each with one sentence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from affectlens.core import AffectLensError, UnknownNameError
from affectlens.core.jsonl import json_line
from affectlens.serving.door import Conflict
from affectlens.serving.local.limits import Busy
from affectlens.serving.pack_requests import Forbidden, Unauthorized

logger = logging.getLogger(__name__)


class NoSuchModel(AffectLensError):
    """A request for a model that is not served."""


class TooLarge(AffectLensError):
    """A body above the limit."""


class TooSlow(AffectLensError):
    """A body that does not arrive."""


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NoSuchModel, 404),
    (TooSlow, 408),
    (Conflict, 409),
    (TooLarge, 413),
    (Busy, 429),
)


class Json(Response):
    """JSON that can be sent whatever a text holds, half a character included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """See Starlette."""
        return json_line(content).encode()


def error_body(message: str, kind: str, status: int) -> dict[str, Any]:
    """What a client gets."""
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}


def status_of(error: Exception, path: str = "/v1") -> int:
    """The HTTP status of an error; 500 for those that no client is to blame for."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    if isinstance(error, UnknownNameError) and not path.startswith("/v1"):
        return 404
    return 400 if isinstance(error, AffectLensError) else 500


def told(error: Exception, path: str = "/v1") -> dict[str, Any]:
    """What a client is told of an error; the log gets what no client is to blame for."""
    status = status_of(error, path)
    if status == 500:
        logger.error("A request failed.", exc_info=error)
        message = "Something went wrong in the server; its log says more."
        return error_body(message, "InternalError", status)
    return error_body(str(error), type(error).__name__, status)


def answer(error: Exception, path: str = "/v1") -> Json:
    """An error as a response."""
    body = told(error, path)
    status = body["error"]["code"]
    headers = {"Retry-After": "1"} if status == 429 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Json(body, status_code=status, headers=headers)


def add_handlers(app: FastAPI) -> None:
    """Answer every error of an app so."""

    async def ours(request: Request, error: Exception) -> Response:
        return answer(error, request.url.path)

    async def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return Json(error_body(_sentence(error.errors()), "InvalidRequest", 400), status_code=400)

    async def http(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        known = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
        message = str(error.detail or known).rstrip(".") + "."
        body = error_body(message, known.replace(" ", ""), status)
        return Json(body, status_code=status, headers=error.headers)

    app.add_exception_handler(AffectLensError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, ours)


def _sentence(errors: Sequence[Any]) -> str:
    """The first thing that is wrong with a body."""
    if not errors:
        return "The request cannot be read."
    first = errors[0]
    if first.get("type") == "json_invalid":
        return "The body is no JSON."
    where = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    said = str(first.get("msg", "is invalid"))
    return f"{where or 'body'}: {said[:1].lower()}{said[1:]}."
