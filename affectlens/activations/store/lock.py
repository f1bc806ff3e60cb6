"""One writer per store.

On this machine the operating system keeps the lock, and drops it with the process that held it.
Elsewhere it is an object with a token that its holder rewrites from time to time; one that has not
been rewritten for a while is that of a dead process.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from affectlens.activations.store.folder import Folder
from affectlens.core.errors import ArtefactError
from affectlens.core.lock import NOTE, Holder, held, refusal

logger = logging.getLogger(__name__)

LOCK = "writer.lock"
LOCKS = (LOCK, LOCK + NOTE)
"""Files of a folder that say who writes it, and hold nothing."""
BEAT = 10.0  # seconds between two signs of life
LAPSE = 60.0  # seconds without one after which a holder may be dead
_SETTLE = 0.5  # seconds in which two who take a lock at once see each other


@contextmanager
def writing_alone(folder: Folder) -> Generator[Callable[[], None]]:
    """Hold the lock of a folder, which exists.

    Yields:
        A check that it is still ours; call it before what must not be done twice.

    Raises:
        ArtefactError: If another process holds it, or the lock cannot be written.
    """
    if folder.path is not None:
        with held(folder.path / LOCK, folder.path):
            yield lambda: None
        return
    lock = _RemoteLock(folder)
    lock.take()
    try:
        yield lock.check
    finally:
        lock.release()


class _RemoteLock:
    def __init__(self, folder: Folder) -> None:
        self._folder, self._token = folder, uuid.uuid4().hex
        self._stop, self._beats, self._holder = threading.Event(), 0, Holder.me()
        self._thread = threading.Thread(target=self._live, name="lock", daemon=True)

    def take(self) -> None:
        """Write the token, and see whether it stays."""
        other = self._read()
        if other is not None and self._alive(other):
            more = f" (the lock of a process that was killed lapses after {LAPSE:.0f} seconds)"
            raise refusal(self._folder.where, Holder.read(other), more)
        self._sign()
        time.sleep(_SETTLE)
        if not self._mine():
            raise refusal(self._folder.where, Holder.read(self._read()))
        self._thread.start()

    def check(self) -> None:
        """Refuse to go on if another process took the lock."""
        if not self._mine():
            raise ArtefactError(
                f"Another process took over {self._folder.where}, as this one gave no sign of "
                "life; let that one finish."
            )

    def release(self) -> None:
        """Remove the lock, if it is still ours."""
        self._stop.set()
        self._thread.join()
        if self._mine():
            self._folder.remove(LOCK)

    def _alive(self, held: dict[str, Any]) -> bool:
        """Whether the holder signed lately; clocks may differ, so an old sign is watched."""
        if abs(time.time() - float(held.get("time", 0))) < LAPSE:
            return True
        time.sleep(2 * BEAT)
        now = self._read()
        return now is not None and now != held

    def _live(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                if not self._mine():
                    return
                self._sign()
            except (ArtefactError, OSError) as error:
                logger.warning("The lock of %s was not renewed: %s", self._folder.where, error)

    def _sign(self) -> None:
        self._beats += 1
        sign = {
            "token": self._token,
            "beat": self._beats,
            "time": time.time(),
            **asdict(self._holder),
        }
        self._folder.write(LOCK, json.dumps(sign).encode())

    def _mine(self) -> bool:
        held = self._read()
        return held is not None and held.get("token") == self._token

    def _read(self) -> dict[str, Any] | None:
        if self._folder.size(LOCK) is None:
            return None
        try:
            found = json.loads(self._folder.read(LOCK))
        except (ArtefactError, ValueError):
            return None
        return found if isinstance(found, dict) else None
