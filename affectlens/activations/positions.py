"""Positions: which tokens of a text are read, by name.

| name | what | rows per text |
| --- | --- | --- |
| ``last`` | the last token of the row: of a prompt, its generation prompt included | 1 |
| ``last:<part>`` | the last token of a part | 1 |
| ``mean:<part>`` | mean over the tokens of a part | 1 |
| ``first:k[:<part>]`` | mean over the first ``k`` tokens of a part (all of a shorter one) | 1 |
| ``from:k[:<part>]`` | mean over a part without its first ``k`` tokens | 1 |
| ``all[:<part>]`` | every token, unpooled | tokens |

Parts are ``reply``, ``prompt``, ``user`` (the last user message), ``system``, ``text``, and any
turn of a chat by its number from 0: ``user:0``, ``assistant:0``, ``user:1``, … (``mean:user:0``,
``last:assistant:1``, ``first:8:user:0``). Without one, ``first`` and ``from`` count in the reply,
in the text of a plain text, or in the prompt, whichever the record has first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from affectlens.core.errors import DataError, UnknownNameError, unknown

PARTS: tuple[str, ...] = ("reply", "prompt", "user", "system", "text")
DEFAULT_POSITIONS: Mapping[str, str] = {
    "elicited": "last",
    "replies": "mean:reply",
    "texts": "mean:text",
}
"""Where each design of corpus is read unless told otherwise (its emotion shows there)."""

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
_GRAMMAR = re.compile(r"(?:(last|all)|mean|(?:first|from):(\d+))(?::(\w+(?::\d+)?))?")
_TURN = re.compile(r"(?:user|assistant):(?:0|[1-9]\d*)")


@dataclass(frozen=True)
class Position:
    """One way to read a text.

    Attributes:
        name: As asked for; names files and columns.
        what: ``"last"``, ``"mean"``, ``"first"``, ``"from"`` or ``"all"``.
        count: The ``k`` of ``first:k`` and ``from:k``, else 0.
        part: One of :data:`PARTS`, or a turn such as ``"user:0"``; empty for the whole row
            (``last``, ``all``) or the part that carries the label (``first``, ``from``).
    """

    name: str
    what: str
    count: int = 0
    part: str = ""

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
        what, count, part = name.split(":")[0], int(match[2] or 0), match[3] or ""
        if (what == "mean" and not part) or (what == "first" and count == 0):
            raise unknown("position", name, _EXAMPLES)
        return cls(name, what, count, part)

    @property
    def pooled(self) -> bool:
        """Whether a text gives one row (else one per token)."""
        return self.what != "all"

    def span(self, parts: Mapping[str, tuple[int, int]], length: int, record: str) -> range:
        """Tokens to read in one text, counted from its first real token.

        Args:
            parts: Token spans ``[start, end)`` of the text.
            length: Tokens in the text.
            record: Its id, for messages.

        Raises:
            DataError: If the text has no such part, or nothing is left of it.
        """
        start, end = self._part(parts, length, record)
        if self.what == "last":
            start = max(start, end - 1)
        elif self.what == "first":
            end = min(end, start + self.count)
        elif self.what == "from":
            if end - start <= self.count:
                raise DataError(
                    f"Record {record} has only {end - start} tokens to read, {self.name!r} skips "
                    f"{self.count}; choose a smaller number or leave short texts out."
                )
            start += self.count
        if start >= end:
            raise DataError(f"Record {record} has no tokens at position {self.name!r}; drop it.")
        return range(start, end)

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
