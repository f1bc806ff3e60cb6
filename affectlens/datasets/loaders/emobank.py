"""EmoBank: 10,062 sentences rated for valence, arousal and dominance (Buechel and Hahn, 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from affectlens.core import DataError
from affectlens.core.errors import unknown
from affectlens.datasets.loaders.hub import hub_splits
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.datasets.splits import role_of
from affectlens.datasets.tables.delimited import read_table
from affectlens.datasets.tables.text_files import require_column

CITE = 'Buechel and Hahn, 2017, "EmoBank", EACL; texts from MASC and SemEval-2007 Task 14'
SCALE: tuple[float, float] = (1.0, 5.0)
"""Lowest and highest rating of each dimension; 3 is neutral."""

_COLUMNS = ("id", "split", "V", "A", "D", "text")
_DIMENSIONS = {"valence": "V", "arousal": "A", "dominance": "D"}
_SPLITS = {"train": "fit", "dev": "tune", "validation": "tune", "test": "test"}


def emobank(path: str | Path | None = None, *, hub: str | None = None) -> Corpus:
    """Load EmoBank from the authors' CSV, or from a hub data set with the same columns.

    Args:
        path: ``emobank.csv``, or its folder; with ``meta.tsv`` beside it the genre becomes the
            theme.
        hub: Id of a hub data set whose columns are those of ``emobank.csv`` (the authors publish
            none there).

    Returns:
        No emotion labels; ``meta["valence"]``, ``meta["arousal"]`` and ``meta["dominance"]`` are
        mean ratings from 1 to 5 (:data:`SCALE`). Splits train, dev, test as fit, tune, test; the
        authors split by sentence, so one document may lie in several.

    Raises:
        DataError: If neither or both sources are given, or a row is not what it should be.
    """
    if (path is None) == (hub is None):
        raise DataError("Give EmoBank one source: path= with emobank.csv, or hub= with an id.")
    genres: dict[str, str] = {}
    if path is not None:
        file = Path(path)
        file = file / "emobank.csv" if file.is_dir() else file
        genres = _genres(file.parent / "meta.tsv")
        rows = _from_file(file)
    else:
        rows = _from_hub(str(hub))
    records: list[Record] = []
    fitting = 0
    for where, row in rows:
        split = _split(where, str(row["split"]))
        role = role_of(split, fitting)
        fitting += split == "fit"
        text = str(row["text"])
        if not text.strip():
            raise DataError(f"{where}: the text is empty.")
        ratings = {name: _rating(where, row[column]) for name, column in _DIMENSIONS.items()}
        id_ = str(row["id"])
        records.append(
            Record(
                id=id_,
                messages=(Message("text", text),),
                emotion=None,
                valence=None,
                group=id_,
                theme=genres.get(id_, "sentences"),
                split=split,
                meta={"role": role, **ratings},
            )
        )
    provenance = {
        "source": str(path) if path is not None else f"hub:{hub}",
        "licence": "CC-BY-SA-4.0",
        "cite": CITE,
        "scale": list(SCALE),
    }
    return Corpus("emobank", "texts", tuple(records), provenance)


def _from_file(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in read_table(path):
        for column in _COLUMNS:
            require_column(path, number, row, column)
        yield f"{path}, line {number}", row


def _from_hub(repository: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, rows, _ in hub_splits(repository):
        for number, row in enumerate(rows):
            fields = {"split": name, "id": f"{name}_{number}", **row}
            missing = [column for column in _COLUMNS if column not in fields]
            if missing:
                raise DataError(
                    f"Hub data set {repository} has no column {missing[0]!r}; EmoBank's are "
                    f"{', '.join(_COLUMNS)}."
                )
            yield f"{repository}, {name} row {number}", fields


def _genres(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = read_table(path, delimiter="\t")
    return {row["id"]: row["category"] for _, row in rows if row.get("id") and row.get("category")}


def _split(where: str, name: str) -> str:
    if name not in _SPLITS:
        raise DataError(f"{where}: {unknown('split', name, _SPLITS)}")
    return _SPLITS[name]


def _rating(where: str, value: object) -> float:
    low, high = SCALE
    try:
        rating = float(str(value))
    except ValueError:
        raise DataError(f"{where}: {value!r} is not a number.") from None
    if not low <= rating <= high:
        raise DataError(f"{where}: rating {value} is not between {low:g} and {high:g}.")
    return rating
