"""Reading other people's text files: every complaint names the file and the line."""

from __future__ import annotations

import json
from bisect import bisect_left
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


_HOLDS = "a list of objects, or a list of texts for each label"


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


def read_json_list(path: Path) -> Iterator[Row]:
    """The objects of a JSON list, or of lists of texts by label, each with the line it begins in.

    Raises:
        DataError: If the file is neither.
    """
    text = read_text(path)
    try:
        yield from _listed(path, text)
    except _Repeated as error:
        raise DataError(f"{path}: two values for {error}.") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}).") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deep.") from None


def _listed(path: Path, text: str) -> Iterator[Row]:
    json.loads(text)  # whole and well formed; then once more, for the lines
    walker, at = json.JSONDecoder(object_pairs_hook=_once), _skip(text, 0)
    ends = [place for place, letter in enumerate(text) if letter == "\n"]

    def line(place: int) -> int:
        return bisect_left(ends, place) + 1

    if text[at] == "[":
        for place, value in _entries(walker, text, at):
            if not isinstance(value, dict):
                raise DataError(f"{path}, line {line(place)}: not a JSON object {{...}}.")
            yield line(place), cast("dict[str, Any]", value)
        return
    if text[at] != "{":
        raise DataError(f"{path} must hold {_HOLDS}.")
    seen: set[str] = set()
    while text[at] == "{" or text[at] == ",":
        at = _skip(text, at + 1)
        if text[at] == "}":
            break
        label, at = walker.raw_decode(text, at)
        if label in seen:
            raise _Repeated(repr(label))
        seen.add(label)
        at = _skip(text, _skip(text, at) + 1)
        if text[at] != "[":
            raise DataError(
                f"{path}, line {line(at)}: {label!r} is no list of texts; a JSON file "
                f"holds {_HOLDS}."
            )
        for place, value in _entries(walker, text, at):
            if not isinstance(value, str):
                raise DataError(f"{path}, line {line(place)}: not a text.")
            yield line(place), {"text": value, "emotion": label, "id": f"{label}:{place}"}
        at = _skip(text, walker.raw_decode(text, at)[1])


def _entries(walker: json.JSONDecoder, text: str, at: int) -> Iterator[tuple[int, Any]]:
    """Where each entry of the list that begins here begins, and what it is."""
    while text[at] != "]":
        at = _skip(text, at + 1)
        if text[at] == "]":
            return
        value, end = walker.raw_decode(text, at)
        yield at, value
        at = _skip(text, end)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\n\r":
        at += 1
    return at


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
