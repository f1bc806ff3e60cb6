"""What a probe is to read: a label of each row, or a number.

Labels come from a column of the store (``emotion``, ``theme``, …) or from a corpus; numbers
(valence, arousal, an intensity) from a corpus, whose records have them in ``meta``. A row without a
value plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affectlens.activations.store.manifest import LABELS
from affectlens.activations.store.store import ActivationStore
from affectlens.core.emotions import inferred_labels
from affectlens.core.errors import DataError, unknown
from affectlens.datasets.schema import Corpus, Record

COLUMNS: tuple[str, ...] = ("emotion", "valence", "group", "scenario", "theme", "split", "role")
"""Columns of a store that can be read or grouped by: what a row is, not where it was read."""


@dataclass(frozen=True, eq=False)
class Labels:
    """A label per row.

    Attributes:
        name: What it is, for messages and tables.
        values: Of every row of a position; None where there is none.
        classes: Labels to tell apart, in order.
    """

    name: str
    values: Sequence[str | None]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        found = set(self.values)
        for name in self.classes:
            if name not in found:
                raise unknown("class", name, sorted(str(v) for v in found if v))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise DataError(
                f"A probe needs at least two different classes, not {list(self.classes)}."
            )

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Numbers:
    """A number per row.

    Attributes:
        name: What it is, for messages and tables.
        values: Of every row of a position; None where there is none.
    """

    name: str
    values: Sequence[float | None]

    def __post_init__(self) -> None:
        known = [value for value in self.values if value is not None]
        if not all(math.isfinite(value) for value in known):
            raise DataError(f"{self.name} is NaN or infinite in some rows; leave those empty.")
        if len(set(known)) < 2:
            raise DataError(
                f"{self.name} has {'no value' if not known else f'only the value {known[0]:g}'}; "
                "a probe needs numbers that differ."
            )

    def __len__(self) -> int:
        return len(self.values)


Target = Labels | Numbers


def store_labels(
    store: ActivationStore,
    column: str = "emotion",
    position: str | None = None,
    classes: Sequence[str] | None = None,
) -> Labels:
    """A column of a store as a target.

    Args:
        store: Activations with labels.
        column: One of :data:`COLUMNS`.
        position: Whose rows; default: the one that suits its design.
        classes: Labels to tell apart; default: those that occur, in the order of the label set.

    Raises:
        UnknownNameError: If the store has no such column, or a class does not occur.
        DataError: If there are fewer than two classes.
    """
    if column not in COLUMNS:
        more = "" if column in LABELS else "; numbers come from the corpus: al.probes.target_of"
        raise unknown(f"target in this store{more}", column, COLUMNS)
    values: list[Any] = store.column(column, position)
    if classes is None:
        found = {value for value in values if value}
        order = store.label_set if column == "emotion" else sorted(found)
        classes = [value for value in order if value in found]
    return Labels(column, values, tuple(classes))


def target_of(
    corpus: Corpus,
    name: str,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Target:
    """A target by name: numbers where all values are, else labels.

    Args:
        corpus: Whose records have it: a field (``emotion``, ``theme``, …) or a key of ``meta``,
            which comes first (EmoBank's ``valence`` is a rating, ours a label).
        name: Of the field or key.
        ids: Records in the order of the rows that are read, each as often as it has rows; default:
            the corpus.
        classes: Labels to tell apart; default: all that occur, in the order of the label set.

    Raises:
        UnknownNameError: If no record has it.
        DataError: If some values are words and others numbers, or there are fewer than two.
    """
    of_record = {record.id: _value(record, name) for record in corpus}
    known = [value for value in of_record.values() if value is not None]
    if not known:
        raise unknown(f"target in corpus {corpus.name}", name, available(corpus))
    values = [of_record.get(id_) for id_ in (of_record if ids is None else ids)]
    numeric = [_is_number(value) for value in known]
    if all(numeric) and classes is None:
        return Numbers(name, [None if v is None else float(v) for v in values])
    if any(numeric) and not all(numeric):
        word = next(v for v, n in zip(known, numeric, strict=True) if not n)
        raise DataError(
            f"{name} in corpus {corpus.name} is a number in some records and {word!r} in others; "
            "give all of them numbers, or none."
        )
    labels = [None if v is None else str(v) for v in values]
    if classes is None:
        found = {label for label in labels if label is not None}
        order = corpus.label_set if name == "emotion" else inferred_labels(found)
        classes = [label for label in order if label in found]
    return Labels(name, labels, tuple(classes))


def numbers_of(corpus: Corpus, name: str, ids: Sequence[str] | None = None) -> Numbers:
    """As `target_of`, where numbers are wanted.

    Raises:
        DataError: If the target is text.
    """
    found = target_of(corpus, name, ids)
    if isinstance(found, Labels):
        raise DataError(
            f"{name} in corpus {corpus.name} is text ({', '.join(found.classes[:4])}), where "
            "numbers are wanted; name a column of numbers, or read it as labels."
        )
    return found


def available(corpus: Corpus) -> list[str]:
    """Names of the targets that a corpus has values of."""
    keys = {key for record in corpus for key, value in record.meta.items() if _plain(value)}
    fields = [name for name in COLUMNS if any(_value(record, name) for record in corpus)]
    return list(dict.fromkeys([*fields, *sorted(keys)]))


def _value(record: Record, name: str) -> Any:
    found = record.meta.get(name)
    if found is None and name in COLUMNS:
        found = getattr(record, name)
    if isinstance(found, str) and not found.strip():
        return None
    return found if _plain(found) else None


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return not isinstance(value, bool)


def renamed(target: Labels, names: Mapping[str, str]) -> Labels:
    """Labels under other names; those named "" play no part.

    Raises:
        UnknownNameError: If a label does not occur.
        DataError: If fewer than two are left.
    """
    for name in names:
        if name not in target.classes:
            raise unknown(f"label of {target.name}", name, target.classes)
    to = {label: names.get(label, label) for label in target.classes}
    values = [None if v is None else (to.get(v) or None) for v in target.values]
    classes = tuple(dict.fromkeys(new for new in to.values() if new))
    return Labels(target.name, values, classes)
