"""A user's own data: JSONL or CSV, with a map from our fields to their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affectlens.core import TONES, VALENCES, DataError, UnknownNameError, emotion_name
from affectlens.core.errors import unknown
from affectlens.datasets.files import Row, read_csv, read_jsonl, require_column
from affectlens.datasets.schema import SPLITS, Corpus, Message, Record, scenario_of
from affectlens.datasets.splits import DEFAULT_FRACTIONS, grouped_roles, grouped_split

FIELDS: tuple[str, ...] = (
    "id",
    "text",
    "system",
    "prompt",
    "reply",
    "emotion",
    "valence",
    "group",
    "theme",
    "split",
)
"""What a column can be used as."""

SUFFIXES: tuple[str, ...] = (".jsonl", ".csv", ".tsv")
_WORDS = {"text": "text", "system": "system", "prompt": "user", "reply": "assistant"}
_SPLIT_ALIASES = {
    **{split: split for split in SPLITS},
    "train": "fit",
    "dev": "tune",
    "val": "tune",
    "valid": "tune",
    "validation": "tune",
}


@dataclass(frozen=True)
class _Parsed:
    """A row before it has a split for sure."""

    id: str
    messages: tuple[Message, ...]
    emotion: str | None
    valence: str | None
    group: str
    scenario: str
    theme: str
    split: str | None


def from_file(
    path: str | Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    emotions: Sequence[str] | None = TONES,
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Corpus:
    """Load a corpus from a ``.jsonl``, ``.csv`` or ``.tsv`` file.

    A row has a ``text``, or a chat: ``prompt`` with or without ``system`` and ``reply``. Rows with
    the same ``group`` (or, without that column, the same prompt) are one content under several
    emotions; ``valence`` becomes part of the group. The design follows from the columns: a reply
    makes it ``"replies"``, an emotion with a system prompt ``"elicited"``, all else ``"texts"``.

    Args:
        path: The file, in UTF-8.
        columns: Field (one of :data:`FIELDS`) to column name. A field left out is read from the
            column of its own name, if there is one; a field mapped to None is ignored.
        emotions: Labels that are valid; None takes any.
        fractions: Shares of fit, tune and test where there is no split column.
        seed: Of that split, which keeps groups whole and themes balanced.

    Raises:
        DataError: Naming file and line.
        UnknownNameError: For an emotion, valence, split or field that does not exist.
    """
    path = Path(path)
    fields = _field_columns(columns or {})
    rows: list[_Parsed] = []
    seen: dict[str, int] = {}
    for number, row in _rows(path):
        parsed = _parse(path, number, row, fields, emotions)
        first = seen.setdefault(parsed.id, number)
        if first != number:
            raise DataError(f"{path}, line {number}: id {parsed.id!r} is that of line {first}.")
        rows.append(parsed)
    if not rows:
        raise DataError(f"{path} has a header but no rows.")
    records = _with_splits(rows, fractions, seed)
    provenance = {
        "source": str(path),
        "columns": {name: column for name, (column, _) in fields.items() if column != name},
        "seed": seed,
        "fractions": dict(fractions),
    }
    return Corpus(path.stem, _design(path, rows), records, provenance)


def _field_columns(columns: Mapping[str, str | None]) -> dict[str, tuple[str, bool]]:
    """``field -> (column, whether it must be there)``."""
    for name in columns:
        if name not in FIELDS:
            raise unknown("field", name, FIELDS)
    fields = {name: (name, False) for name in FIELDS if name not in columns}
    return fields | {name: (column, True) for name, column in columns.items() if column is not None}


def _rows(path: Path) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES)} to be read as a corpus.")
    if suffix == ".jsonl":
        return read_jsonl(path)
    return read_csv(path, delimiter="\t" if suffix == ".tsv" else ",")


def _parse(
    path: Path,
    number: int,
    row: Mapping[str, Any],
    fields: Mapping[str, tuple[str, bool]],
    emotions: Sequence[str] | None,
) -> _Parsed:
    where = f"{path}, line {number}"
    values: dict[str, str] = {}
    for name, (column, required) in fields.items():
        if required:
            require_column(path, number, dict(row), column)
        if column in row:
            value = _string(where, column, row[column], words=name in _WORDS)
            if value.strip() or name in ("text", "prompt", "reply", "emotion"):
                values[name] = value
    messages = _messages(where, values)
    emotion = _emotion(where, values["emotion"], emotions) if "emotion" in values else None
    valence = values["valence"].strip().lower() if "valence" in values else None
    if valence is not None and valence not in VALENCES:
        raise _at(where, unknown("valence", valence, VALENCES))
    split = values["split"].strip().lower() if "split" in values else None
    if split is not None and split not in _SPLIT_ALIASES:
        raise _at(where, unknown("split", split, _SPLIT_ALIASES))
    group = values.get("group", values.get("prompt", f"row_{number}"))
    scenario = scenario_of(group) if "group" in values else group
    if valence is not None and scenario_of(group) == group:
        group = f"{group}:{valence}"
    return _Parsed(
        id=values.get("id", f"row_{number}"),
        messages=messages,
        emotion=emotion,
        valence=valence,
        group=group,
        scenario=scenario,
        theme=values.get("theme", "all"),
        split=None if split is None else _SPLIT_ALIASES[split],
    )


def _string(where: str, column: str, value: Any, *, words: bool) -> str:
    if value is None:
        return ""
    if words and not isinstance(value, str):
        raise DataError(f"{where}: {column} is {value!r}, not a text.")
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: {column} is a {type(value).__name__}, not a name.")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: {column} holds half a character (a lone surrogate).") from None
    return text


def _messages(where: str, values: Mapping[str, str]) -> tuple[Message, ...]:
    given = [name for name in _WORDS if name in values]
    for name in given:
        if not values[name].strip():
            raise DataError(f"{where}: the {name} is empty.")
    if "text" in given and len(given) > 1:
        raise DataError(f"{where}: has both text and {given[1]}; map only one of them.")
    if "text" not in given and "prompt" not in given:
        raise DataError(
            f"{where}: has neither a text nor a prompt; name the column with columns={{'text': …}}."
        )
    return tuple(Message(_WORDS[name], values[name]) for name in given)


def _emotion(where: str, label: str, emotions: Sequence[str] | None) -> str:
    if not label.strip():
        raise DataError(f"{where}: the emotion is empty.")
    if emotions is None or label.strip() in emotions:
        return label.strip()
    try:
        return emotion_name(label, tuple(emotions))
    except UnknownNameError as error:
        raise _at(where, error) from None


def _at(where: str, error: UnknownNameError) -> UnknownNameError:
    return UnknownNameError(f"{where}: {error}")


def _design(path: Path, rows: Sequence[_Parsed]) -> str:
    """The design that all rows share."""
    designs: dict[str, int] = {}
    for row in rows:
        roles = [message.role for message in row.messages]
        if roles[-1] == "assistant":
            design = "replies"
        elif roles[0] == "system" and row.emotion is not None:
            design = "elicited"
        else:
            design = "texts"
        designs.setdefault(design, len(designs))
    # Neutral rows of the elicited design may come without a system prompt.
    if set(designs) == {"elicited", "texts"} and all(r.messages[-1].role == "user" for r in rows):
        return "elicited"
    if len(designs) > 1:
        raise DataError(
            f"{path} mixes rows of the designs {' and '.join(designs)}; put them in files of "
            "their own."
        )
    return next(iter(designs))


def _with_splits(
    rows: Sequence[_Parsed], fractions: Mapping[str, float], seed: int
) -> tuple[Record, ...]:
    scenarios = [row.scenario for row in rows]
    if all(row.split is None for row in rows):
        themes: dict[str, str] = {}
        strata = [themes.setdefault(row.scenario, row.theme) for row in rows]
        splits = grouped_split(scenarios, fractions=fractions, strata=strata, seed=seed)
    else:
        splits = [row.split or "fit" for row in rows]
    return tuple(
        Record(
            id=row.id,
            messages=row.messages,
            emotion=row.emotion,
            valence=row.valence,
            group=row.group,
            theme=row.theme,
            split=split,
            meta={"role": role, "scenario": row.scenario},
        )
        for row, split, role in zip(rows, splits, grouped_roles(scenarios, splits), strict=True)
    )
