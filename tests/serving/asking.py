"""Asking a server in the plainest way: no client library, nothing tried again."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any


def ask(
    address: str,
    body: Any = None,
    method: str | None = None,
    headers: Mapping[str, str] = {},
    *,
    timeout: float,
) -> tuple[int, Any]:
    """Status, and decoded JSON or text."""
    request = urllib.request.Request(address, method=method)
    for name, value in headers.items():
        request.add_header(name, value)
    if body is not None:
        request.data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            status, text = reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text
