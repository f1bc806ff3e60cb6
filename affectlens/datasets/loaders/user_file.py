"""A user's own data: JSON, JSONL or CSV, with a map from our fields to their columns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from affectlens.core import TONES, DataError
from affectlens.core.emotions import inferred_labels
from affectlens.core.errors import unknown
from affectlens.datasets.schema import Corpus, Record
from affectlens.datasets.splits import DEFAULT_FRACTIONS, grouped_roles, grouped_split
from affectlens.datasets.tables.cells import missing
from affectlens.datasets.tables.columns import Columns
from affectlens.datasets.tables.delimited import read_table
from affectlens.datasets.tables.labels import (
    OTHERS,
    SEVERAL,
    OtherLabelError,
    checked_labels,
    refuse_alike,
)
from affectlens.datasets.tables.rows import Parsed, parse_row
from affectlens.datasets.tables.text_files import Row, read_json_list, read_jsonl

SUFFIXES: tuple[str, ...] = (".jsonl", ".json", ".csv", ".tsv")

logger = logging.getLogger(__name__)


def from_file(
    path: str | Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    emotions: Sequence[str] | None = TONES,
    several: str = "refuse",
    others: str = "refuse",
    keep: Sequence[str] = (),
    fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
    seed: int = 0,
) -> Corpus:
    """Load a corpus from a ``.jsonl``, ``.json``, ``.csv`` or ``.tsv`` file.

    A ``.json`` file holds a list of objects, which are its rows, or lists of texts by label.

    A row has a ``text``, or a chat: ``prompt`` with or without ``system`` and ``reply``, or
    ``messages`` (``[{"role": …, "content": …}, …]``, of which a last assistant message is the
    reply). Rows with the same ``group`` (or, without one, the same prompt) are one content under
    several emotions; ``valence`` becomes part of the group, and groups with the same ``scenario``
    stay in one split. The design follows from the columns: a reply makes it ``"replies"``, an
    emotion with a system prompt ``"elicited"``, all else ``"texts"``.

    An empty cell, null, NaN and names for them (``None``, ``NA``, ``null``, …) are no value, in
    every column: such a row has no label, no group, and so on.

    Args:
        path: The file, in UTF-8.
        columns: Field (one of `FIELDS`) to column name. A field left out is read from the column of
            its own name, if there is one (``emotion`` also from ``label``); a field mapped to None
            is ignored. Case and outer spaces of column names do not matter. In nested rows a
            dotted path leads to the value (``event.positive``), and one that ends in ``.*`` makes
            a record of every key, which is its label unless there is a column for that.
        emotions: The label set; None takes any labels. A label is looked up as it is, then whatever
            its case and spaces, and then as an alias (``joy`` for ``happiness``).
        several: What to do with a row that has several labels (``"joy,anger"``, a list):
            ``"refuse"`` the file, take the ``"first"`` (``meta["labels"]`` has all), or ``"drop"``.
        others: What to do with a row whose label is not in the set: ``"refuse"`` the file, or
            ``"drop"`` the row (``provenance["other_labels"]`` counts them).
        keep: Columns whose cells go into ``meta`` as they are, where they hold a value. Numbers of
            a kept column ``valence`` are ratings and not the field of that name.
        fractions: Shares of fit, tune and test where there is no split column.
        seed: Of that split, which keeps groups whole and themes balanced.

    Raises:
        DataError: Naming file and line.
        UnknownNameError: For an emotion, valence, split or field that does not exist.
    """
    path = Path(path)
    if several not in SEVERAL:
        raise unknown("way to take several labels", several, SEVERAL)
    if others not in OTHERS:
        raise unknown("way to take other labels", others, OTHERS)
    labels = None if emotions is None else checked_labels(emotions)
    found = Columns(path, columns or {})
    source, broken = _rows(path)
    rows: list[Parsed] = []
    kept: list[dict[str, Any]] = []
    seen, left = dict[str, int](), Counter[str]()
    # A JSON list may be a single line; elsewhere a row is found again by its line.
    by_line = path.suffix.lower() != ".json"
    for place, (number, row) in enumerate(source, 1):
        name = f"row_{number if by_line else place}"
        cells = {column: row[column] for column in keep if not missing(row.get(column))}
        for fields in found.records_of(number, name, row):
            if _number(cells.get("valence")):
                fields.pop("valence", None)
            try:
                parsed = parse_row(path, number, name, fields, labels, several)
            except OtherLabelError:
                if others == "refuse":
                    raise
                left[str(fields["emotion"][1]).strip()] += 1
                continue
            if parsed is None:
                continue
            if parsed.id in seen:
                raise DataError(
                    f"{path}, line {number}: id {parsed.id!r} is that of line {seen[parsed.id]}."
                )
            seen[parsed.id] = number
            rows.append(parsed)
            kept.append(cells)
    for name in keep:
        if not any(name in cells for cells in kept) and not any(
            getattr(row, name, None) for row in rows
        ):
            raise unknown(f"column in {path}", name, [*found.read.values(), *found.not_read])
        found.not_read.pop(name, None)
    if not rows:
        what = "a header but no rows"
        if several == "drop" or left:
            what = "no rows with one of the labels" if left else "no rows with one label"
        raise DataError(f"{path} has {what}.")
    used = {row.emotion for row in rows if row.emotion is not None}
    if labels is None:
        refuse_alike(sorted(used), str(path))
    found.warn(logger, labelled=bool(used))
    provenance = {
        "source": str(path),
        "columns": {name: column for name, column in found.read.items() if column != name},
        "not_read": list(found.not_read),
        "broken_rows": [row.id for row in rows if row.line in broken],
        "seed": seed,
        "fractions": dict(fractions),
        **({"other_labels": dict(left)} if left else {}),
    }
    records = tuple(
        replace(record, meta={**record.meta, **cells})
        for record, cells in zip(_with_splits(path, rows, fractions, seed), kept, strict=True)
    )
    label_set = labels if labels is not None else inferred_labels(used)
    return Corpus(path.stem, _design(path, rows), records, provenance, label_set)


def _number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _rows(path: Path) -> tuple[Iterator[Row], frozenset[int]]:
    """The rows of a file, and the lines of those that run over several."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path} must end in {', '.join(SUFFIXES)} to be read as a corpus.")
    if suffix in (".jsonl", ".json"):
        return (read_jsonl if suffix == ".jsonl" else read_json_list)(path), frozenset()
    table = read_table(path, delimiter="\t" if suffix == ".tsv" else ",")
    return iter(table), frozenset(row.line for row in table.rows if row.broken)


def _design(path: Path, rows: Sequence[Parsed]) -> str:
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
    path: Path, rows: Sequence[Parsed], fractions: Mapping[str, float], seed: int
) -> tuple[Record, ...]:
    scenarios = [row.scenario for row in rows]
    without = [row.line for row in rows if row.split is None]
    if len(without) == len(rows):
        themes: dict[str, str] = {}
        strata = [themes.setdefault(row.scenario, row.theme) for row in rows]
        splits = grouped_split(scenarios, fractions=fractions, strata=strata, seed=seed)
    elif without:
        raise DataError(
            f"{path}, line {without[0]}: the split is missing, but other rows have one; fill it "
            "in, or ignore the column with columns={'split': None}."
        )
    else:
        splits = [str(row.split) for row in rows]
    return tuple(
        Record(
            id=row.id,
            messages=row.messages,
            emotion=row.emotion,
            valence=row.valence,
            group=row.group,
            theme=row.theme,
            split=split,
            meta={"role": role, "scenario": row.scenario}
            | ({"labels": list(row.labels)} if len(row.labels) > 1 else {}),
        )
        for row, split, role in zip(rows, splits, grouped_roles(scenarios, splits), strict=True)
    )
