"""Reading other people's text files: every complaint names the file and the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from affectlens.core import DataError
from affectlens.core.errors import closest_first
from affectlens.core.jsonl import split_lines

Row = tuple[int, dict[str, Any]]
"""Line number (from 1) and the fields of one row."""


def read_text(path: Path) -> str:
    """The text of a UTF-8 file (a byte order mark is dropped).

    Raises:
        DataError: If it is missing, empty, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; name a file.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data.strip():
        raise DataError(f"{path} is empty.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as "
            "UTF-8."
        ) from None


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, numbered from 1 (split at line feeds only)."""
    yield from split_lines(read_text(path))


class _Repeated(Exception):
    """A JSON object names a field twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Repeated(repr(next(name for name in names if names.count(name) > 1)))
    return found


def read_jsonl(path: Path) -> Iterator[Row]:
    """One JSON object per line.

    Raises:
        DataError: If a line is no JSON object, or names a field twice.
    """
    for number, line in read_lines(path):
        try:
            row = json.loads(line, object_pairs_hook=_once)
        except _Repeated as error:
            raise DataError(f"{path}, line {number}: two values for {error}.") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error.msg}).") from None
        except RecursionError:
            raise DataError(f"{path}, line {number}: JSON nested too deep.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object {{...}}.")
        yield number, cast("dict[str, Any]", row)


def require_column(path: Path, number: int, row: dict[str, Any], column: str) -> None:
    """Check that a row has a column.

    Raises:
        DataError: With the columns there are, closest first.
    """
    if column not in row:
        there = ", ".join(closest_first(column, row)[:12]) or "none"
        raise DataError(f"{path}, line {number}: no column {column!r}; there are: {there}.")


def existing(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of a folder that must all be there.

    Raises:
        DataError: Naming what is missing.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}.")
    return [folder / name for name in names]
