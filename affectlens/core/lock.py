"""One writer per folder on this machine's file systems, named to whoever comes second.

The operating system keeps the lock and drops it with the process that held it, so the lock of a
dead process bars nobody. Who holds it stands in a file beside it, which is for people alone.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from affectlens.core.artefact import disk_error
from affectlens.core.errors import ArtefactError

NOTE = ".holder.json"
"""Put behind the lock's name."""


@dataclass(frozen=True)
class Holder:
    """A process that writes.

    Attributes:
        host: Its machine.
        pid: Its number there.
        since: When it began, in local time with its offset, ISO 8601.
        command: Its command line.
    """

    host: str
    pid: int
    since: str
    command: str

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        program, *arguments = sys.argv or [""]
        command = shlex.join([Path(program).name or "python", *arguments])
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, command)

    @classmethod
    def read(cls, raw: Any) -> Holder | None:
        """From its plain form; None if that is damaged."""
        try:
            return cls(str(raw["host"]), int(raw["pid"]), str(raw["since"]), str(raw["command"]))
        except (KeyError, TypeError, ValueError):
            return None

    def __str__(self) -> str:
        return f"`{self.command}`, process {self.pid} on {self.host}, since {self.since}"


def refusal(where: str, holder: Holder | None, more: str = "") -> ArtefactError:
    """The sentence for whoever comes second.

    Args:
        where: The folder.
        holder: Who writes it, if that is known.
        more: Said at the end.
    """
    who = f" ({holder})" if holder else ""
    return ArtefactError(
        f"Another process is writing {where}{who}; wait until it has finished, or choose another "
        f"folder{more}."
    )


@contextmanager
def held(lock: Path, where: Path) -> Generator[None]:
    """Hold a lock file, whose folder exists, and say so beside it.

    Args:
        lock: The file.
        where: The folder it stands for.

    Raises:
        ArtefactError: If another process holds it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    note = lock.with_name(lock.name + NOTE)
    system = FileLock(lock)
    try:
        system.acquire(timeout=0)
    except Timeout:
        raise refusal(str(where), _read(note)) from None
    except OSError as error:
        raise disk_error(lock, error) from error
    try:
        try:
            note.write_text(json.dumps(asdict(Holder.me())), encoding="utf-8")
        except OSError as error:
            raise disk_error(note, error) from error
        yield
    finally:
        # Before the lock: afterwards it may be the note of the next holder.
        note.unlink(missing_ok=True)
        system.release()


def _read(note: Path) -> Holder | None:
    try:
        return Holder.read(json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
