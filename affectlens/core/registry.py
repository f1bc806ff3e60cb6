"""Tables of what can be added by name: estimators, operators, arms, figures, each with its help."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar, runtime_checkable

from affectlens.core.errors import DataError, unknown


@runtime_checkable
class Entry(Protocol):
    """A row: a frozen record with a name, a line of help, and what its kind needs besides."""

    @property
    def name(self) -> str:
        """What users write."""
        ...

    @property
    def help(self) -> str:
        """One line, without a full stop at its end, for lists."""
        ...


E = TypeVar("E", bound=Entry)


class Registry(Mapping[str, E], Generic[E]):
    """Entries of one kind, in the order in which lists show them.

    Args:
        kind: What the entries are, in the singular, as sentences name it: ``"estimator"``.
        entries: The rows.
    """

    def __init__(self, kind: str, *entries: E) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}
        for entry in entries:
            self.add(entry)

    def __getitem__(self, name: str) -> E:
        """The entry of a name.

        Raises:
            UnknownNameError: If there is none, naming those there are.
        """
        if name not in self._entries:
            raise unknown(self.kind, name, list(self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self)})"

    def add(self, entry: E) -> None:
        """Add a row.

        Raises:
            DataError: If its name is taken.
        """
        if entry.name in self._entries:
            raise DataError(f"There is already {self.kind} {entry.name!r}; choose another name.")
        self._entries[entry.name] = entry

    @contextmanager
    def adding(self, entry: E) -> Generator[E]:
        """A row that is there within the block only."""
        self.add(entry)
        try:
            yield entry
        finally:
            del self._entries[entry.name]
