"""Positions: which tokens of a text are read, by name.

| name | what | rows per text |
| --- | --- | --- |
| ``last`` | the last token of the row: of a prompt, its generation prompt included | 1 |
| ``last:<part>`` | the last token of a part | 1 |
| ``mean:<part>`` | mean over the tokens of a part, without attention sinks | 1 |
| ``first:k[:<part>]`` | mean over its first ``k`` tokens (all of a shorter one), likewise | 1 |
| ``from:k[:<part>]`` | mean over the part without its first ``k`` tokens, likewise | 1 |
| ``all[:<part>]`` | every token, unpooled, attention sinks too | tokens |

Means leave attention sinks out: the first token of the row, whatever it is, and those that
`affectlens.models.sinks` finds in the model. Their residual is many times longer than that of any
other token and says nothing of the text. ``k`` counts the other tokens only. A name that ends in
``+sinks`` (``mean:text+sinks``) takes them in.

Parts are ``reply``, ``prompt``, ``user`` (the last user message), ``system``, ``text``, and any
turn of a chat by its number from 0: ``user:0``, ``assistant:0``, ``user:1``, … (``mean:user:0``,
``last:assistant:1``, ``first:8:user:0``). Without one, ``first`` and ``from`` count in the reply,
in the text of a plain text, or in the prompt, whichever the record has first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectlens.core.errors import DataError, UnknownNameError, unknown

PARTS: tuple[str, ...] = ("reply", "prompt", "user", "system", "text")
DEFAULT_POSITIONS: Mapping[str, str] = {
    "elicited": "last",
    "replies": "mean:reply",
    "texts": "mean:text",
}
"""Where each design of corpus is read unless told otherwise (its emotion shows there)."""

_MEANS = ("mean", "first", "from")
_EXAMPLES = (
    "last",
    "mean:reply",
    "mean:text",
    "all",
    "from:8",
    "first:8:reply",
    "last:reply",
    "mean:user:0",
)
_GRAMMAR = re.compile(r"(?:(last|all)|mean|(?:first|from):(\d+))(?::(\w+(?::\d+)?))?(\+sinks)?")
_TURN = re.compile(r"(?:user|assistant):(?:0|[1-9]\d*)")

Ints = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Position:
    """One way to read a text.

    Attributes:
        name: As asked for; names files and columns.
        what: ``"last"``, ``"mean"``, ``"first"``, ``"from"`` or ``"all"``.
        count: The ``k`` of ``first:k`` and ``from:k``, else 0.
        part: One of :data:`PARTS`, or a turn such as ``"user:0"``; empty for the whole row
            (``last``, ``all``) or the part that carries the label (``first``, ``from``).
        sinks: Whether a mean takes attention sinks in.
    """

    name: str
    what: str
    count: int = 0
    part: str = ""
    sinks: bool = False

    @classmethod
    def parse(cls, name: str) -> Position:
        """Read a name.

        Raises:
            UnknownNameError: If it is not one of the forms above.
        """
        name = name.strip()
        match = _GRAMMAR.fullmatch(name)
        if match is None or (match[3] and match[3] not in PARTS and not _TURN.fullmatch(match[3])):
            raise unknown("position", name, _EXAMPLES)
        what, count, part = re.split(r"[:+]", name)[0], int(match[2] or 0), match[3] or ""
        if (what == "mean" and not part) or (what == "first" and count == 0):
            raise unknown("position", name, _EXAMPLES)
        if match[4] and match[1]:  # single tokens are read as they are
            raise unknown("position", name, _EXAMPLES)
        return cls(name, what, count, part, bool(match[4]))

    @property
    def pooled(self) -> bool:
        """Whether a text gives one row (else one per token)."""
        return self.what != "all"

    @property
    def spares_sinks(self) -> bool:
        """Whether attention sinks are left out."""
        return self.what in _MEANS and not self.sinks

    def tokens(self, parts: Mapping[str, tuple[int, int]], sinks: Ints, record: str) -> Ints:
        """Tokens to read in one text, counted from its first real token, ascending.

        Args:
            parts: Token spans ``[start, end)`` of the text.
            sinks: Which tokens of the text are attention sinks, ``[length]``.
            record: Its id, for messages.

        Raises:
            DataError: If the text has no such part, or nothing is left of it.
        """
        start, end = self._part(parts, len(sinks), record)
        found = np.arange(start, end)
        if not len(found):
            raise DataError(f"Record {record} has no tokens at position {self.name!r}; drop it.")
        if self.spares_sinks:
            found = found[~sinks[start:end]]
            if not len(found):
                raise DataError(
                    f"Record {record} has nothing but attention sinks (the first token of a row is "
                    f"one) at position {self.name!r}; drop it, or read 'last' or "
                    f"'{self.name}+sinks'."
                )
        if self.what == "last":
            return found[-1:]
        if self.what == "first":
            return found[: self.count]
        if self.what == "from" and len(found) <= self.count:
            raise DataError(
                f"Record {record} has only {len(found)} tokens to read, {self.name!r} skips "
                f"{self.count}; choose a smaller number or leave short texts out."
            )
        return found[self.count :]

    def _part(
        self, parts: Mapping[str, tuple[int, int]], length: int, record: str
    ) -> tuple[int, int]:
        if self.part:
            if self.part not in parts:
                raise DataError(
                    f"Record {record} has no {self.part}, which position {self.name!r} reads; "
                    f"it has: {', '.join(parts) or 'no parts'}."
                )
            return parts[self.part]
        if self.what in ("first", "from"):
            labelled = next((p for p in ("reply", "text", "prompt") if p in parts), None)
            return parts[labelled] if labelled else (0, length)
        return 0, length


def parse_positions(spec: str | Iterable[str]) -> tuple[Position, ...]:
    """Read one or several names, comma-separated or in a sequence.

    Raises:
        UnknownNameError: If one is unknown, or there is none.
    """
    names = spec.split(",") if isinstance(spec, str) else list(spec)
    unique = dict.fromkeys(name.strip() for name in names if name.strip())
    if not unique:
        raise UnknownNameError(f"Name a position to read, for example {', '.join(_EXAMPLES[:3])}.")
    return tuple(Position.parse(name) for name in unique)
