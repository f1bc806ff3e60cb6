"""The page's files, from memory, with a policy under which nothing else is loaded or run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from affectlens.core.errors import unknown

TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def static_files() -> Mapping[str, bytes]:
    """Name to content of every file."""
    folder = files("affectlens.serving.playground") / "static"
    return {one.name: one.read_bytes() for one in folder.iterdir() if _type(one.name)}


def static_file(name: str) -> tuple[bytes, str]:
    """A file and its media type.

    Raises:
        UnknownNameError: If there is no such file.
    """
    found = static_files()
    if name not in found:
        raise unknown("file", name, found)
    return found[name], _type(name)


def _type(name: str) -> str:
    return TYPES.get(name.rpartition(".")[2], "")
