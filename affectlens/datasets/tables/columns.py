"""Which column of a user's file is which of our fields."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

    def fields_of(self, number: int, row: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
        """``field -> (column, value)`` of a row.

        Raises:
            DataError: If a column that was named is not there, or two could be meant.
        """
        names = tuple(row)
        if names not in self._known:
            self._known[names] = self._match(number, names)
        return {field: (column, row[column]) for field, column in self._known[names].items()}

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
            column = _find(where, asked, names)
            if column is None and field not in self._asked:
                others = [also for also, of in _ALSO.items() if of == field]
                column = next(filter(None, (_find(where, also, names) for also in others)), None)
            if column is not None:
                found[field] = column
            elif field in self._asked:
                there = ", ".join(closest_first(asked, names)[:12]) or "none"
                raise DataError(f"{where}: no column {asked!r}; there are: {there}.")
        self.read.update(found)
        self.not_read.update(dict.fromkeys(n for n in names if n not in found.values()))
        return found


def _find(where: str, wanted: str, names: tuple[str, ...]) -> str | None:
    """The column of a name, or the only one that differs in case and outer spaces alone."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) > 1:
        raise DataError(f"{where}: {' and '.join(map(repr, alike))} could both be {wanted!r}.")
    return alike[0] if alike else None
