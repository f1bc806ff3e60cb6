"""The folder of a store: a local path, or a URL of any file system that fsspec knows.

Local files are read by ranges, or memory-mapped where only some bytes of a range are wanted, and
written under a temporary name. Of remote ones, ranges of bytes are read; an object there appears
whole when it is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import numpy as np

from affectlens.core.artefact import atomic_write, disk_error, file_fingerprint
from affectlens.core.errors import ArtefactError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Chunk = bytes | memoryview  # of single bytes

_PIECE = 8 << 20  # bytes hashed at once


class Folder(ABC):
    """Files by name, with ``/`` between folders.

    Writing raises `ArtefactError` for a full disk or a place one may not write to; reading raises
    it for a file that is missing or shorter than asked.
    """

    @property
    @abstractmethod
    def where(self) -> str:
        """Its path or URL."""

    @property
    def path(self) -> Path | None:
        """Its path, if it is local."""
        return None

    @abstractmethod
    def make(self) -> None:
        """Create it, if it does not exist."""

    @abstractmethod
    def names(self, inner: str = "") -> list[str]:
        """Names of what lies directly in it (or in a folder inside), sorted; none if missing."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is no such file."""

    @abstractmethod
    def view(self, name: str, start: int, stop: int, *, sparse: bool = False) -> Bytes:
        """Bytes ``[start, stop)`` of a file; changing them does not change the file.

        Args:
            name: Of the file.
            start: First byte.
            stop: One past the last byte.
            sparse: Whether only some of them will be looked at.
        """

    @abstractmethod
    def write(self, name: str, *chunks: Chunk) -> None:
        """Write a file, which is there whole or not at all."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """Checksum of a file."""

    @abstractmethod
    def parquet(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """A file as `pyarrow.parquet.ParquetFile` takes it."""

    def read(self, name: str) -> bytes:
        """A small file, whole."""
        size = self.size(name)
        if size is None:
            raise ArtefactError(f"There is no file {self.file(name)}.")
        return self.view(name, 0, size).tobytes()

    def file(self, name: str) -> str:
        """A file's full name, for messages."""
        return f"{self.where}/{name}"

    @contextlib.contextmanager
    def _reading(self, name: str) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ArtefactError(f"{self.file(name)} is missing; capture again.") from None
        except OSError as error:
            raise ArtefactError(f"{self.file(name)} cannot be read: {error}.") from error


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of this machine."""

    root: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.root)

    @property
    def path(self) -> Path:
        """Its path."""
        return self.root

    def make(self) -> None:
        """Create it with its parents."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(self.root, error) from error

    def names(self, inner: str = "") -> list[str]:
        """As `Folder.names`."""
        folder = self.root / inner
        with self._reading(inner):
            return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    def size(self, name: str) -> int | None:
        """As `Folder.size`."""
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def view(self, name: str, start: int, stop: int, *, sparse: bool = False) -> Bytes:
        """Mapped as long as the view lives if sparse; else read, which is faster in one piece."""
        path, size = self.root / name, stop - start
        with self._reading(name):
            if path.stat().st_size < stop:
                raise ArtefactError(f"{self.file(name)} is cut short; capture again.")
            if sparse and size > 0:
                return np.memmap(path, np.uint8, "c", start, (size,))
            return np.fromfile(path, np.uint8, size, offset=start)

    def write(self, name: str, *chunks: Chunk) -> None:
        """Under a temporary name, then renamed."""

        def fill(temporary: Path) -> None:
            with temporary.open("wb") as handle:
                for chunk in chunks:
                    handle.write(chunk)

        atomic_write(self.root / name, fill)

    def remove(self, name: str) -> None:
        """As `Folder.remove`."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(self.file(name), error) from error

    def sha256(self, name: str) -> str:
        """As `Folder.sha256`."""
        with self._reading(name):
            return file_fingerprint(self.root / name)

    @contextlib.contextmanager
    def parquet(self, name: str) -> Generator[Any]:
        """Its path."""
        yield str(self.root / name)


@dataclass(frozen=True)
class RemoteFolder(Folder):
    """A folder of another file system, by URL."""

    url: str

    @property
    def where(self) -> str:
        """Its URL."""
        return self.url

    @cached_property
    def _place(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ArtefactError(f"{self.url} cannot be opened: {error}.") from error
        return fs, str(root).rstrip("/")

    def _at(self, name: str) -> str:
        return f"{self._place[1]}/{name}".rstrip("/")

    def make(self) -> None:
        """Create it where the file system has folders."""
        with self._writing(""):
            self._place[0].makedirs(self._place[1], exist_ok=True)

    def names(self, inner: str = "") -> list[str]:
        """As `Folder.names`."""
        fs = self._place[0]
        fs.invalidate_cache()
        with self._reading(inner):
            try:
                found = fs.ls(self._at(inner), detail=False)
            except FileNotFoundError:
                return []
        return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)

    def size(self, name: str) -> int | None:
        """As `Folder.size`."""
        fs = self._place[0]
        fs.invalidate_cache()
        with self._reading(name):
            try:
                entry = fs.info(self._at(name))
            except FileNotFoundError:
                return None
        return int(entry["size"]) if entry["type"] == "file" else None

    def view(self, name: str, start: int, stop: int, *, sparse: bool = False) -> Bytes:
        """Read as one range."""
        del sparse
        if stop <= start:
            return np.zeros(0, np.uint8)
        with self._reading(name):
            found = self._place[0].cat_file(self._at(name), start=start, end=stop)
        if len(found) != stop - start:
            raise ArtefactError(f"{self.file(name)} is cut short; capture again.")
        return np.frombuffer(bytearray(found), np.uint8)

    def write(self, name: str, *chunks: Chunk) -> None:
        """As one object. What counts a shard as finished is its receipt, written after it."""
        fs = self._place[0]
        with self._writing(name):
            fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            if sum(len(chunk) for chunk in chunks) <= _PIECE:
                fs.pipe_file(self._at(name), b"".join(chunks))
                return
            with fs.open(self._at(name), "wb") as handle:
                for chunk in chunks:
                    handle.write(chunk)

    def remove(self, name: str) -> None:
        """As `Folder.remove`."""
        with self._writing(name), contextlib.suppress(FileNotFoundError):
            self._place[0].rm_file(self._at(name))

    def sha256(self, name: str) -> str:
        """As `Folder.sha256`."""
        digest = hashlib.sha256()
        with self._reading(name), self._place[0].open(self._at(name), "rb") as handle:
            while piece := handle.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    @contextlib.contextmanager
    def parquet(self, name: str) -> Generator[Any]:
        """Opened, read by ranges."""
        with self._reading(name):
            handle = self._place[0].open(self._at(name), "rb")
        with handle:
            yield handle

    @contextlib.contextmanager
    def _writing(self, name: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(self.file(name), error) from error


def open_folder(where: str | Path | Folder) -> Folder:
    """The folder at a path or URL (``file://`` is a path)."""
    if isinstance(where, Folder):
        return where
    text = str(where)
    if isinstance(where, Path) or "://" not in text:
        return LocalFolder(Path(where))
    if text.startswith("file://"):
        return LocalFolder(Path(url2pathname(text.removeprefix("file://"))))
    return RemoteFolder(text.rstrip("/"))
