"""Starting a local server: arguments, the model, the socket."""

from __future__ import annotations

import argparse
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from affectlens.core import DataError
from affectlens.serving.contract import KEY
from affectlens.serving.door import Door
from affectlens.serving.local.app import build_app
from affectlens.serving.local.engine import Engine
from affectlens.serving.local.guards import GuardSettings
from affectlens.serving.local.limits import EngineLimits
from affectlens.serving.local.server import API_KEY
from affectlens.serving.local.service import HttpSettings, Service
from affectlens.serving.settings import Settings

logger = logging.getLogger("affectlens")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_USUAL = EngineLimits()
T = TypeVar("T")


def parser() -> argparse.ArgumentParser:
    """What `affectlens serve` writes, and what may follow its ``--``."""
    made = argparse.ArgumentParser(prog="affectlens serve --backend transformers --")
    made.add_argument("--model", required=True, help=argparse.SUPPRESS)
    made.add_argument("--steering", required=True, help=argparse.SUPPRESS)
    made.add_argument("--host", default="127.0.0.1", help=argparse.SUPPRESS)
    made.add_argument("--port", type=int, default=8000, help=argparse.SUPPRESS)
    made.add_argument("--served-model-name", help="what clients call the model")
    made.add_argument("--device", help="default: the best there is")
    made.add_argument("--dtype", help="default: bfloat16 where the device is fast at it")
    made.add_argument("--quantize", help="a quantiser of `affectlens list quantisers`")
    made.add_argument("--device-map", help="auto: over all devices")
    for name, value, words in (
        ("rows", _USUAL.rows, "replies written at once"),
        ("waiting", _USUAL.waiting, "replies that may wait"),
        ("replies", _USUAL.replies, "replies of one request"),
        ("reply", _USUAL.reply, "tokens of the longest reply"),
    ):
        made.add_argument(f"--max-{name}", type=int, default=value, help=words)
    made.add_argument("--max-length", type=int, help="tokens of prompt and reply")
    made.add_argument("--cache-mib", type=int, default=1024, help="of keys and values")
    made.add_argument("--max-body-kib", type=int, default=1024, help="of a request")
    return made


def main(arguments: Sequence[str]) -> None:
    """Serve until told to stop.

    Raises:
        AffectLensError: If the server cannot be started.
    """
    import uvicorn

    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logger.setLevel(logging.INFO)
    listening = _listen(given.host, given.port)
    with listening:
        service = in_a_thread_that_ends(lambda: _service(given))
        door = service.door
        where = f"http://{_written(given.host)}:{listening.getsockname()[1]}"
        _hear(listening, given.port)
        with service.engine:
            logger.info(
                "Serving %s with %s at %s (POST %s/v1/chat/completions).",
                service.name, ", ".join(door.packs), where, where,
            )  # fmt: skip
            config = uvicorn.Config(
                build_app(service),
                log_level="warning",
                access_log=False,  # who asked for what is nobody's business
                timeout_keep_alive=30,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
            uvicorn.Server(config).run(sockets=[listening])


def in_a_thread_that_ends(job: Callable[[], T]) -> T:
    """What a job gives.

    OpenMP keeps workers for every thread that ever computed in parallel, and once there are more of
    them than cores, all of them sleep between two operations instead of waiting awake. So whoever
    loads the model must be gone when the engine's thread begins. Ctrl-C does not wait for it.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(job())
        except BaseException as error:  # whoever waits for it has to know
            done.set_exception(error)

    thread = threading.Thread(target=work, name="affectlens-loading", daemon=True)
    thread.start()
    found = done.result()
    thread.join()
    return found


def _service(given: argparse.Namespace) -> Service:
    from affectlens.models.loading import load_model

    settings = Settings.of({KEY: _json(given.steering)})
    assert settings is not None
    limits = EngineLimits(
        rows=given.max_rows,
        waiting=given.max_waiting,
        replies=given.max_replies,
        length=given.max_length,
        reply=given.max_reply,
        cache_bytes=given.cache_mib * 2**20,
    )
    door = Door(settings)
    spread: dict[str, Any] = {
        name: value
        for name, value in (
            ("quantization_config", given.quantize),
            ("device_map", given.device_map),
        )
        if value is not None
    }
    spread["template_variables"] = template_variables_of(door)
    model = load_model(given.model, device=given.device, dtype=given.dtype, **spread)
    for pack in door.packs.values():
        pack.require_model(model, force=settings.force)
    key = os.environ.get(API_KEY) or None
    local = given.host in LOOPBACK
    if not local and key is None:
        logger.warning(
            "Everybody who reaches %s may use this server; give it a key (--api-key).", given.host
        )
    guards = GuardSettings(key, local_only=local, max_body=given.max_body_kib * 1024)
    http = HttpSettings(given.served_model_name or given.model, guards)
    return Service(Engine(model, limits), door, http)


def template_variables_of(door: Door) -> Mapping[str, Any]:
    """What the packs' template was told; requests may say otherwise (``chat_template_kwargs``).

    Raises:
        DataError: If packs were made with different ones.
    """
    first = door.packs[door.first].template_variables
    for name, pack in door.packs.items():
        if pack.template_variables != first:
            raise DataError(
                f"Packs {door.first} and {name} were made with different template variables "
                f"({dict(first)} and {dict(pack.template_variables)}); serve them apart."
            )
    return first


def _listen(host: str, port: int) -> socket.socket:
    """The socket, before the model is loaded: a port that is taken is said at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise DataError(
            f"Cannot listen on {host} port {port} ({error.strerror or error}); is another server "
            "running there? Choose another with --port."
        ) from error
    return made


def _hear(listening: socket.socket, port: int) -> None:
    """Take the port for good; until now another server could do the same."""
    try:
        listening.listen(2048)
    except OSError as error:
        raise DataError(
            f"Another server took port {port} while the model was being loaded; choose another "
            "with --port."
        ) from error


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"--steering must be JSON: {error}.") from error


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
