"""``affectlens play``: a server of its own with the page, or the page before another server."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from affectlens.core import DataError, ModelError

USUAL_PORT = 8000
_LOOK = 2.0
"""Seconds between two looks at whether the server still runs."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class PlayRequest:
    """What is to be played with.

    Attributes:
        packs: Files, or ``name=file``; the first is the one the page starts with. A file may be
            called by a name such as ``box:NAME``. None with ``url``.
        model: Default: the model of the first pack.
        url: A server that runs already; then packs and model are its own.
        api_key: Of that server, or what this one is to ask for.
        host: 127.0.0.1 for this machine alone.
        port: None: 8000, or any that is free.
        force: Take a pack of another model of the same shape.
        browser: Whether to open the page, where there is something to open it with.
    """

    packs: tuple[str, ...] = ()
    model: str | None = None
    url: str | None = None
    api_key: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    force: bool = False
    browser: bool = True


def play(request: PlayRequest, say: Say, open_page: Callable[[str], object] | None = None) -> None:
    """Show the page until interrupted.

    Args:
        request: What with.
        say: Takes lines for people.
        open_page: Opens an address; default: the usual browser, if there is one.

    Raises:
        DataError: If the port is taken, or the other server does not steer.
        AffectLensError: If the server cannot be started; see the local server.
    """
    opener = open_page or usual_browser()
    if not request.browser:
        opener = None
    if request.url is not None:
        _play_remote(request, say, opener)
    else:
        _play_local(request, say, opener)


def usual_browser() -> Callable[[str], object] | None:
    """What opens pages here; None without a screen, as a text browser would take the terminal."""
    screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return webbrowser.open if screen else None


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: A name of this machine.
        port: None: the usual one, or any if that is taken.

    Raises:
        DataError: If it cannot be had.
    """
    reason: OSError | None = None
    for one in (USUAL_PORT, 0) if port is None else (port,):
        try:
            found = socket.getaddrinfo(host, one, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            raise DataError(f"{host!r} is no address of this machine ({error}).") from error
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen()
            return made
        except OSError as error:
            made.close()
            reason = error
    raise DataError(
        f"Port {port or USUAL_PORT} of {host} is taken ({_said(reason)}); choose "
        "another with --port."
    )


def _said(reason: OSError | None) -> str:
    return "" if reason is None else str(reason.strerror or reason)


def _announce(url: str, say: Say, opener: Callable[[str], object] | None) -> None:
    address = f"{url}/play"
    say(f"The playground is at {address}  (Ctrl-C ends it)")
    opened = False
    if opener is not None:
        try:
            opened = bool(opener(address))
        except (OSError, webbrowser.Error):
            opened = False
    if not opened:
        say("Open the address in a browser.")


def _play_local(request: PlayRequest, say: Say, opener: Callable[[str], object] | None) -> None:
    from affectlens.serving.checking import Server
    from affectlens.serving.child_process import running
    from affectlens.serving.local.server import prepare

    with listen(request.host, request.port) as probe:
        port = int(probe.getsockname()[1])
    options = {"force": request.force or None, "api_key": request.api_key}
    extra = ["--host", request.host, "--port", str(port)]
    launch = prepare(request.packs, request.model, options=options, extra=extra)
    server = Server(f"http://{_called(request.host)}:{port}", request.api_key)
    say("Loading the model…")
    with (
        tempfile.TemporaryDirectory(prefix="affectlens-") as folder,
        running(launch, server, Path(folder) / "server.log"),
    ):
        _announce(server.url, say, opener)
        while True:
            time.sleep(_LOOK)
            if server.ask("/health").status != 200:
                raise ModelError("The server is no longer healthy; start it again.")


def _play_remote(request: PlayRequest, say: Say, opener: Callable[[str], object] | None) -> None:
    missing = [name for name in ("fastapi", "httpx", "uvicorn") if find_spec(name) is None]
    if missing:
        raise ModelError(
            f"The playground needs {', '.join(missing)}; run: pip install 'affectlens[play]'"
        )
    import uvicorn

    from affectlens.serving.playground.remote import build_remote, check_upstream

    assert request.url is not None
    check_upstream(request.url, request.api_key)
    with listen(request.host, request.port) as listening:
        local = request.host in ("127.0.0.1", "localhost", "::1")
        app = build_remote(request.url, request.api_key, local_only=local)
        url = f"http://{_called(request.host)}:{listening.getsockname()[1]}"
        # The socket listens already, so that the page may be asked for before the server is up.
        threading.Timer(0.1, _announce, (url, say, opener)).start()
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def _called(host: str) -> str:
    """How this machine's browser calls a server that listens there."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
