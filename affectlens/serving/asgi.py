"""What ASGI middleware of both servers needs."""

from __future__ import annotations

from typing import Any


def replayed(body: bytes, receive: Any) -> Any:
    """A ``receive`` that gives a body once, and then what comes after the request's own."""
    given = False

    async def again() -> Any:
        nonlocal given
        while given:
            message = await receive()
            if message["type"] != "http.request":  # the request's own body, if nobody has read it
                return message
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
