"""Ray itself: importing it, connecting to it, and what each actor gets of its machines."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from affectlens.activations.distributed.job_queue import first_line
from affectlens.core.errors import AffectLensError
from affectlens.core.extras import needed

_ANSWER_SECONDS = 10.0
_HOST = re.compile(r"(?:ray://)?([^/:]+):(\d+)")


def import_ray() -> Any:
    """The module.

    Raises:
        ModelError: If it is not installed.
    """
    return needed("ray", "Spreading work over machines")


@contextmanager
def connected(ray: Any, address: str | None) -> Generator[None]:
    """Use the cluster this process is connected to, else connect to one or start one.

    What is connected or started here ends with the block.

    Raises:
        AffectLensError: If there is no cluster at the address.
    """
    if ray.is_initialized():
        yield
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        _check_answers(where)
        # What actors print would come out on our stdout, which is for results.
        ray.init(
            address=where,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise AffectLensError(
            f"No Ray cluster answers at {where} ({first_line(error)}); start one with 'ray "
            "start --head', or leave the address out."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Ray itself tries for minutes, and says so on stderr in its own words."""
    match = _HOST.fullmatch(address)
    if match is not None:
        socket.create_connection((match[1], int(match[2])), timeout=_ANSWER_SECONDS).close()


@dataclass(frozen=True)
class Share:
    """What one actor gets of the machines.

    Attributes:
        threads: For its computations; so many cores are reserved.
        gpus: Reserved for it; may be a part of one.
    """

    threads: int
    gpus: float

    @classmethod
    def of(
        cls, ray: Any, workers: int, *, threads: int | None, gpus: float | None, device: str | None
    ) -> Share:
        """Divide the cores among the actors; a GPU each where there are any.

        Args:
            ray: The module, connected.
            workers: How many actors.
            threads: Instead of what the division gives.
            gpus: Instead of one or none.
            device: That the model is wanted on; None is the best.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node.get("CPU", 0)) for node in nodes]
        if threads is None:  # an actor does not reach beyond its machine
            threads = max(1, min(sum(cores) // workers, max(cores)))
        if gpus is None:
            wanted = device is None or device.startswith("cuda")
            gpus = 1.0 if wanted and any(node.get("GPU") for node in nodes) else 0.0
        return cls(threads, gpus)

    def __str__(self) -> str:
        return f"{self.threads} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
