"""A server as a child process: started, waited for, and stopped whatever happens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.core import DataError, ModelError
from affectlens.core.artefact import disk_error
from affectlens.serving.checking import Server
from affectlens.serving.contract import Launch

HOST = "127.0.0.1"
START_SECONDS = 1800.0
"""Large models are loaded and compiled for minutes."""

STOP_SECONDS = 20.0
GRACE_SECONDS = 1.0
"""A process that dies closes its connections a little earlier."""

_ERROR = re.compile(r"(?:^|[\s.])(\w+(?:Error|Exception)): (.+)")
_ECHO = "Engine core initialization failed"
"""What vLLM says after the process that really failed has said why."""


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    launch: Launch, server: Server, log: Path, *, patience: float = START_SECONDS
) -> Generator[Server]:
    """Run a server while the block runs.

    Args:
        launch: What to start.
        server: The address it will answer at.
        log: Where its output goes.
        patience: Seconds until it must answer.

    Yields:
        The address, once it is healthy.

    Raises:
        ModelError: If it does not start, or ends while it is needed, with its own words.
        ArtefactError: If the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise disk_error(log, error) from error
    with output, _terminable():
        # A group of its own: Ctrl-C is ours to handle, and whatever it starts ends with it.
        process = subprocess.Popen(
            launch.command,
            env=dict(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child = _Child(process, launch.program, log)
        try:
            _wait(child, server, patience)
            try:
                yield server
            except DataError as error:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                    raise ModelError(child.ended("while it was needed")) from error
                raise
        finally:
            _stop(process)


@dataclass(frozen=True)
class _Child:
    """A process that was started.

    Attributes:
        process: It.
        program: What it is.
        log: Where it writes.
    """

    process: subprocess.Popen[bytes]
    program: str
    log: Path

    def ended(self, when: str) -> str:
        """The sentence about its end."""
        reason = _reason(self.log)
        return (
            f"{self.program} ended {when} (exit status {self.process.returncode}): "
            f"{reason + ' ' if reason else ''}Its log is {self.log}."
        )


def _wait(child: _Child, server: Server, patience: float) -> None:
    deadline, impatient = time.monotonic() + patience, replace(server, timeout=5)
    while True:
        if child.process.poll() is not None:
            raise ModelError(child.ended("before it answered"))
        with suppress(DataError):
            if impatient.ask("/health").status == 200:
                return
        if time.monotonic() > deadline:
            raise ModelError(
                f"{child.program} did not answer within {patience:.0f} seconds; what it did is in "
                f"{child.log}."
            )
        time.sleep(0.5)


def _reason(log: Path) -> str:
    """The last error of a log that is not only an echo of another."""
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [m.group(2).strip() for line in text.splitlines() if (m := _ERROR.search(line))]
    return next((one for one in reversed(found) if not one.startswith(_ECHO)), "")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _terminable() -> Generator[None]:
    """End the block in order when this process is told to end, so that no server is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: Any) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
