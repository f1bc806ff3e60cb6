"""What clients send to load packs, and packs as they are named when a server is started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affectlens.core import AffectLensError, DataError

WAIT = 30.0
"""Seconds that unloading waits for requests that still use the pack."""


class Forbidden(AffectLensError):
    """Something the operator has not allowed."""


class Unauthorized(AffectLensError):
    """A call without the server's API key."""


def inside(folder: str, path: str) -> Path:
    """A file in the operator's folder, wherever links lead.

    Raises:
        Forbidden: If it lies outside; what is there is not looked at.
        DataError: If it is no path.
    """
    root = Path(folder).expanduser().resolve()
    try:
        found = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path!r} is no path of a file: {error}.") from error
    if not found.is_relative_to(root) or found == root:
        raise Forbidden(f"{path} is not in the folder that packs may be loaded from.")
    return found


def allowed_folder(folder: str | None, verb: str) -> str:
    """The folder packs may be loaded from.

    Args:
        folder: Of the server's settings.
        verb: What is asked for, in the third person: ``"loads"``.

    Raises:
        Forbidden: If there is none.
    """
    if folder is None:
        raise Forbidden(
            f"This server {verb} no packs over HTTP; start it with pack_folder "
            "(affectlens serve --pack-folder FOLDER)."
        )
    return folder


def read_body(body: bytes, options: Sequence[str] = ()) -> tuple[str, str, dict[str, Any]]:
    """Name and path of a pack that a client wants loaded, and what else it may say.

    Args:
        body: JSON.
        options: Other names that it may hold.

    Raises:
        DataError: If it is something else.
    """
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if isinstance(given, dict) and {"name", "path"} <= set(given) <= {"name", "path", *options}:
        name, path = given.pop("name"), given.pop("path")
        if isinstance(name, str) and isinstance(path, str) and path:
            return name, path, given
    raise DataError('Send {"name": "mine", "path": "mine.safetensors"} as JSON.')


def read_wait(text: str | None) -> float:
    """Seconds to wait for requests that still use a pack.

    Raises:
        DataError: If it is no sensible number.
    """
    if text is None:
        return WAIT
    try:
        seconds = float(text)
    except ValueError:
        raise DataError(f"wait must be a number of seconds, not {text!r}.") from None
    if not 0 <= seconds <= 3600:
        raise DataError(f"wait must lie between 0 and 3600 seconds, not {text}.")
    return seconds


def pack_files(packs: Sequence[str]) -> dict[str, str]:
    """Files by name, of what people type: ``FILE`` or ``NAME=FILE``.

    In place of a file may stand a name such as ``box:NAME`` (`affectlens.steering.packs`).

    Raises:
        DataError: If two have one name.
        UnknownNameError, ArtefactError: If a file or pack does not exist.
    """
    from affectlens.steering.packs import existing, located

    files: dict[str, str] = {}
    for given in packs:
        name, equals, file = given.partition("=")
        if not equals:
            name, file = "", given
        path = located(file)
        name = name or path.stem
        if name in files:
            raise DataError(f"Two packs are called {name}; write NAME=FILE to tell them apart.")
        files[name] = str(existing(path.expanduser()).resolve())
    return files
