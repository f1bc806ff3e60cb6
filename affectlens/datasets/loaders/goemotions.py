"""GoEmotions: 54,263 Reddit comments labelled by people (Demszky et al., 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from affectlens.core import DataError
from affectlens.core.emotions import (
    LABEL_MAPPINGS,
    LABEL_SETS,
    TONES,
    LabelMapping,
    label_mapping,
)
from affectlens.core.errors import unknown
from affectlens.datasets.loaders.hub import hub_splits
from affectlens.datasets.schema import ROLES, Corpus, Message, Record
from affectlens.datasets.splits import role_of
from affectlens.datasets.tables.delimited import read_table
from affectlens.datasets.tables.text_files import existing

LABELS: tuple[str, ...] = LABEL_SETS["goemotions"].labels
"""The 27 emotions and neutral, in the order of the label ids."""

HUB_ID = "google-research-datasets/go_emotions"
CITE = 'Demszky et al., 2020, "GoEmotions: A Dataset of Fine-Grained Emotions", ACL'
_SPLITS = {"train": "fit", "dev": "tune", "validation": "tune", "test": "test"}


def goemotions(
    path: str | Path | None = None,
    *,
    hub: bool = False,
    mapping: str = "ekman",
    single_label: bool = True,
    role: str | None = None,
) -> Corpus:
    """Load GoEmotions from a folder with the authors' TSV files, or from the hub.

    Args:
        path: Folder with ``train.tsv``, ``dev.tsv``, ``test.tsv`` (text, label ids, comment id).
        hub: Load ``google-research-datasets/go_emotions`` instead (needs the network).
        mapping: ``"ekman"`` for the six and neutral, ``"original"`` for the 27 and neutral.
        single_label: Keep only comments that have one label after mapping. Otherwise ``emotion``
            is the first label; ``meta["labels"]`` has all of them, in the authors' names.
        role: Role of the fitting comments (``"judge"`` or ``"direction"``); by default they take
            turns.

    Returns:
        Splits train, dev, test as fit, tune, test; every comment is a group of its own.

    Raises:
        DataError: If neither or both sources are given, or a file is not what it should be.
    """
    valid = ("original", *(m.target for m in LABEL_MAPPINGS.values() if m.source == "goemotions"))
    if mapping not in valid:
        raise unknown("mapping", mapping, valid)
    to = None if mapping == "original" else label_mapping("goemotions", mapping)
    if role is not None and role not in ROLES[:2]:
        raise unknown("role", role, ROLES[:2])
    if (path is None) == (not hub):
        raise DataError("Give GoEmotions one source: path= with the TSV files, or hub=True.")
    records: list[Record] = []
    fitting = 0
    for split, id_, text, labels in _from_hub() if path is None else _from_folder(Path(path)):
        mapped = [label if to is None else to(label) for label in labels]
        if mapped[0] is None or (single_label and len(set(mapped)) > 1):
            continue
        use = (role or role_of(split, fitting)) if split == "fit" else split
        fitting += split == "fit"
        records.append(
            Record(
                id=id_,
                messages=(Message("text", text),),
                emotion=mapped[0],
                valence=None,
                group=id_,
                theme="comments",
                split=split,
                meta={"role": use, "labels": list(labels)},
            )
        )
    provenance: dict[str, Any] = {
        "source": str(path) if path is not None else f"hub:{HUB_ID}",
        "licence": "Apache-2.0",
        "cite": CITE,
        "mapping": mapping,
        "single_label": single_label,
    }
    if to is not None and to.lost:
        provenance["lost"] = list(to.lost)
    label_set = LABELS if to is None else TONES if mapping == "ekman" else _reached(to)
    return Corpus("goemotions", "texts", tuple(records), provenance, label_set)


def _reached(to: LabelMapping) -> tuple[str, ...]:
    """The labels of the target that some label becomes, in its order."""
    known = set(to.to.values())
    return tuple(label for label in LABEL_SETS[to.target].with_neutral if label in known)


_Row = tuple[str, str, str, Sequence[str]]


def _from_folder(folder: Path) -> Iterator[_Row]:
    """``(split, id, text, labels)`` of every row of the three files."""
    for path in existing(folder, ("train.tsv", "dev.tsv", "test.tsv")):
        for number, row in read_table(path, "\t", ("text", "label ids", "comment id")):
            text, ids, comment = row.values()
            if not text.strip():
                raise DataError(f"{path}, line {number}: the text is empty.")
            try:
                labels = [LABELS[_index(id_)] for id_ in ids.split(",")]
            except (ValueError, IndexError):
                raise DataError(
                    f"{path}, line {number}: {ids!r} is no list of label ids from 0 to "
                    f"{len(LABELS) - 1}."
                ) from None
            yield _SPLITS[path.stem], comment.strip(), text, labels


def _index(digits: str) -> int:
    index = int(digits)
    if index < 0:
        raise ValueError(digits)
    return index


def _from_hub() -> Iterator[_Row]:
    for name, rows, features in hub_splits(HUB_ID, "simplified"):
        if name not in _SPLITS:
            continue
        names: Sequence[str] = _class_names(features) or LABELS
        for row in rows:
            if str(row["text"]).strip():
                labels = [names[index] for index in row["labels"]]
                yield _SPLITS[name], str(row["id"]), str(row["text"]), labels


def _class_names(features: Mapping[str, Any]) -> list[str] | None:
    """Label names as the hub's copy lists them, wherever its library keeps them."""
    feature = features.get("labels")
    return getattr(getattr(feature, "feature", feature), "names", None)
