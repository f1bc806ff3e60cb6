"""One row of a user's file: its messages, its label and what it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core import VALENCES, DataError, UnknownNameError
from affectlens.core.errors import unknown
from affectlens.core.utf8 import require_utf8
from affectlens.datasets.schema import SPLITS, Message, scenario_of
from affectlens.datasets.tables.cells import missing, turns
from affectlens.datasets.tables.labels import read_label

_WORDS = {"text": "text", "system": "system", "prompt": "user", "reply": "assistant"}
_REQUIRED = ("text", "prompt", "reply")
_SPLIT_ALIASES = {
    **{split: split for split in SPLITS},
    "train": "fit",
    "dev": "tune",
    "val": "tune",
    "valid": "tune",
    "validation": "tune",
}


@dataclass(frozen=True)
class Parsed:
    """A row before it has a split for sure; ``labels`` are all it has, ``emotion`` is the first."""

    line: int
    id: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    valence: str | None
    group: str
    scenario: str
    theme: str
    split: str | None

    @property
    def emotion(self) -> str | None:
        """Its label, if it has one."""
        return self.labels[0] if self.labels else None


def parse_row(
    path: Path,
    number: int,
    name: str,
    fields: Mapping[str, tuple[str, Any]],
    emotions: Sequence[str] | None,
    several: str,
) -> Parsed | None:
    """Read a row.

    Args:
        path: The file, for messages.
        number: Of the line.
        name: What stands for an id, where there is none.
        fields: ``field -> (column, value)``.
        emotions: The label set; None for any.
        several: See `affectlens.datasets.tables.labels.SEVERAL`.

    Returns:
        None if the row has several labels and such rows are dropped.

    Raises:
        DataError, UnknownNameError: Naming file and line.
    """
    where = f"{path}, line {number}"
    values: dict[str, str] = {}
    for field, (column, value) in fields.items():
        if field in ("emotion", "messages"):
            continue
        words = field in _WORDS
        if not missing(value, words=words):
            values[field] = _string(where, column, value, words=words)
        elif field in _REQUIRED and not (field != "text" and "messages" in fields):
            values[field] = _nothing(where, field, value)
    messages = _messages(where, values, fields.get("messages", ("", None))[1])
    column, label = fields.get("emotion", ("", None))
    _label_kind(where, column, label)
    labels = read_label(where, label, emotions, several) or []
    if len(labels) > 1 and several == "drop":
        return None
    valence = values["valence"].strip().lower() if "valence" in values else None
    if valence is not None and valence not in VALENCES:
        raise _at(where, unknown("valence", valence, VALENCES))
    split = values["split"].strip().lower() if "split" in values else None
    if split is not None and split not in _SPLIT_ALIASES:
        raise _at(where, unknown("split", split, _SPLIT_ALIASES))
    group = values.get("group", _said(messages) or name)
    scenario = scenario_of(group) if "group" in values else group
    if valence is not None and scenario_of(group) == group:
        group = f"{group}:{valence}"
    return Parsed(
        line=number,
        id=values.get("id", name),
        messages=messages,
        labels=tuple(labels),
        valence=valence,
        group=group,
        scenario=values.get("scenario", scenario),
        theme=values.get("theme", "all"),
        split=None if split is None else _SPLIT_ALIASES[split],
    )


def _nothing(where: str, name: str, value: Any) -> str:
    """Refuse words that are written as missing; blank ones are refused with the messages."""
    if isinstance(value, str) and value.strip():
        raise DataError(
            f"{where}: the {name} is {value!r}, which stands for a missing value; leave the row "
            "out."
        )
    return ""


def _label_kind(where: str, column: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:  # pyright: ignore[reportUnknownVariableType]
            _label_kind(where, column, item)
    elif not missing(value):
        _string(where, column, value, words=False)


def _string(where: str, column: str, value: Any, *, words: bool) -> str:
    if words and not isinstance(value, str):
        raise DataError(f"{where}: {column} is {value!r}, not a text.")
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {column} is a {type(value).__name__}, not a name.")
    return require_utf8(f"{where}: {column}", str(value))


def _messages(where: str, values: Mapping[str, str], chat: Any) -> tuple[Message, ...]:
    given = [name for name in _WORDS if name in values]
    if not missing(chat):
        if given:
            raise DataError(f"{where}: has both messages and {given[0]}; map only one of them.")
        return tuple(Message(role, content) for role, content in turns(where, _parsed(where, chat)))
    for name in given:
        if not values[name].strip():
            raise DataError(f"{where}: the {name} is empty.")
    if "text" in given and len(given) > 1:
        raise DataError(f"{where}: has both text and {given[1]}; map only one of them.")
    if "text" not in given and "prompt" not in given:
        raise DataError(
            f"{where}: has neither a text nor a prompt nor messages; name the column with "
            "columns={'text': …}."
        )
    return tuple(Message(_WORDS[name], values[name]) for name in given)


def _parsed(where: str, chat: Any) -> Any:
    """The list of a JSON file, or of the JSON in a cell of a table."""
    if not isinstance(chat, str):
        return chat
    try:
        return json.loads(chat)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: the messages are no JSON list.") from None


def _said(messages: Sequence[Message]) -> str:
    """What a reply answers, the system prompt apart: the same content under every emotion."""
    turns_before = [m for m in messages if m.role in ("user", "assistant")]
    if turns_before and turns_before[-1].role == "assistant":
        turns_before = turns_before[:-1]
    if len(turns_before) == 1:
        return turns_before[0].content
    return " / ".join(f"{m.role}: {m.content}" for m in turns_before)


def _at(where: str, error: UnknownNameError) -> UnknownNameError:
    return UnknownNameError(f"{where}: {error}")
