"""Checksums of files, remembered as long as the files look untouched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from affectlens.core import ArtefactError
from affectlens.core.artefact import file_fingerprint, read_json, write_json

RACY = 100_000_000  # nanoseconds in which a file may be changed twice and bear one time


class Digests:
    """SHA-256 of files by content; a file is read again only if its looks have changed.

    Looks are size, inode and both times. Times alone say nothing (copying a folder changes them
    all), so they never decide whether contents are equal, only whether to read them again.

    Args:
        note: Where they are remembered, in a folder of the run folder. Files of the run are
            remembered by their names in it.
    """

    def __init__(self, note: Path) -> None:
        self._note, self._root = note, note.parent.parent
        self._known = _read(note)
        self._changed = False

    def of(self, path: Path) -> str:
        """Digest of a file.

        Raises:
            OSError: If it cannot be read.
        """
        name, looks = self._name(path), _looks(path)
        known = self._known.get(name)
        if known is not None and known[0] == looks:
            return str(known[1])
        digest = file_fingerprint(path)
        if _looks(path) == looks:
            self.learn(path, digest)
        return digest

    def learn(self, path: Path, digest: str) -> None:
        """Remember the digest of a file, from whoever has just read or written it."""
        looks = _looks(path)
        # As git does: what was written just now may be written again within one tick of the clock.
        if time.time_ns() - max(looks[2:]) > RACY:
            self._known[self._name(path)] = [looks, digest]
            self._changed = True

    def save(self) -> None:
        """Write what is remembered, if it has changed."""
        if self._changed:
            write_json(self._note, self._known)
            self._changed = False

    def _name(self, path: Path) -> str:
        whole = path.resolve()
        root = self._root.resolve()
        return str(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def _looks(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(note: Path) -> dict[str, list[Any]]:
    try:
        raw = read_json(note)
        return {str(name): [list(looks), str(digest)] for name, (looks, digest) in raw.items()}
    except (ArtefactError, AttributeError, TypeError, ValueError):
        return {}
