"""Which column of a user's file is which of our fields."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from affectlens.core import DataError
from affectlens.core.errors import closest_first, unknown

FIELDS: tuple[str, ...] = (
    "id",
    "text",
    "system",
    "prompt",
    "reply",
    "messages",
    "emotion",
    "valence",
    "group",
    "scenario",
    "theme",
    "split",
)
"""What a column can be used as."""

STAR = ".*"
"""Ends a path that stands for every key in turn."""

_ALSO: Mapping[str, str] = {"label": "emotion"}


class Columns:
    """Finds the columns of each row; what is read and what is not adds up.

    Args:
        path: Of the file, for messages.
        columns: Field to column, or to None for none, as the user gave it.

    Attributes:
        read: Field to column, of all rows.
        not_read: Columns that are no field's, in order of appearance.

    Raises:
        UnknownNameError: If there is no such field.
    """

    def __init__(self, path: Path, columns: Mapping[str, str | None]) -> None:
        for name in columns:
            if name not in FIELDS:
                raise unknown("field", name, FIELDS)
        self._path, self._asked = path, columns
        self._known: dict[tuple[str, ...], dict[str, str]] = {}
        self.read: dict[str, str] = {}
        self.not_read: dict[str, None] = {}

    def records_of(
        self, number: int, name: str, row: Mapping[str, Any]
    ) -> Iterator[dict[str, tuple[str, Any]]]:
        """``field -> (column, value)`` of every record that a row holds: one, or one per key.

        A dotted path leads into a value (``event.positive``), and a last part ``*`` stands for each
        of its keys in turn: ``text=event.*`` makes a record of every text of ``event``, whose label
        is the key unless there is a column for it, all of one group.

        Args:
            number: Of the line, for messages.
            name: What stands for an id and a group, where there is none.
            row: Its columns.

        Raises:
            DataError: If a column that was named is not there, or two could be meant.
        """
        names = tuple(row)
        if names not in self._known:
            self._known[names] = self._match(number, names)
        where = f"{self._path}, line {number}"
        found = self._known[names]
        starred = {field: column for field, column in found.items() if column.endswith(STAR)}
        one = {f: (c, _value(where, c, row)) for f, c in found.items() if f not in starred}
        if not starred:
            yield one
            return
        inside = {f: _value(where, c.removesuffix(STAR), row) for f, c in starred.items()}
        keys = list(dict.fromkeys(key for value in inside.values() for key in value or ()))
        for key in keys:
            of_key = {
                field: (f"{starred[field].removesuffix(STAR)}.{key}", value[key])
                for field, value in inside.items()
                if isinstance(value, Mapping) and key in value
            }
            named = {"emotion": (starred[next(iter(starred))], key)} if "emotion" not in one else {}
            own = {"id": ("", f"{name}:{key}")}
            if "id" in one:
                own = {"id": (one["id"][0], f"{one['id'][1]}:{key}")}
            group = {} if "group" in one else {"group": ("", name)}
            yield {**group, **one, **named, **of_key, **own}

    def warn(self, logger: logging.Logger, *, labelled: bool) -> None:
        """Say which columns were not read, aloud if no label was found."""
        if self.not_read:
            level = logging.INFO if labelled else logging.WARNING
            logger.log(
                level,
                "%s: read %s; not read: %s%s",
                self._path,
                ", ".join(self.read.values()),
                ", ".join(self.not_read),
                "" if labelled else ". No row has a label; name its column if there is one.",
            )

    def _match(self, number: int, names: tuple[str, ...]) -> dict[str, str]:
        where = f"{self._path}, line {number}"
        found: dict[str, str] = {}
        for field in FIELDS:
            asked = self._asked.get(field, field)
            if asked is None:
                continue
            column = _find(where, asked, names) or _path(where, asked, names)
            if column is None and field not in self._asked:
                others = [also for also, of in _ALSO.items() if of == field]
                column = next(filter(None, (_find(where, also, names) for also in others)), None)
            if column is not None:
                found[field] = column
            elif field in self._asked:
                there = ", ".join(closest_first(asked, names)[:12]) or "none"
                raise DataError(f"{where}: no column {asked!r}; there are: {there}.")
        self.read.update(found)
        read = {column.partition(".")[0] for column in found.values()} | set(found.values())
        self.not_read.update(dict.fromkeys(n for n in names if n not in read))
        return found


def _path(where: str, asked: str, names: tuple[str, ...]) -> str | None:
    """A dotted path whose first part is a column, with the column as it is spelt."""
    first, dot, rest = asked.partition(".")
    column = _find(where, first, names) if dot and rest else None
    return None if column is None else f"{column}.{rest}"


def _value(where: str, column: str, row: Mapping[str, Any]) -> Any:
    """What stands in a column, or at the end of a dotted path; None below a null.

    Raises:
        DataError: If a part of the path is not there.
    """
    if column in row:
        return row[column]
    value: Any = row
    walked: list[str] = []
    for part in column.split("."):
        if value is None:
            return None
        keys: list[str] = []
        if isinstance(value, Mapping):
            inside = cast("Mapping[str, Any]", value)
            keys = list(inside)
            if part in inside:
                value, walked = inside[part], [*walked, part]
                continue
        elif isinstance(value, list):
            entries = cast("list[Any]", value)
            keys = [str(n) for n in range(len(entries))]
            if part in keys:
                value, walked = entries[int(part)], [*walked, part]
                continue
        there = ", ".join(closest_first(part, keys)[:12]) or "nothing"
        raise DataError(
            f"{where}: the path {column!r} ends at {'.'.join(walked) or part!r}; in it there is: "
            f"{there}."
        )
    return value


def _find(where: str, wanted: str, names: tuple[str, ...]) -> str | None:
    """The column of a name, or the only one that differs in case and outer spaces alone."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) > 1:
        raise DataError(f"{where}: {' and '.join(map(repr, alike))} could both be {wanted!r}.")
    return alike[0] if alike else None
