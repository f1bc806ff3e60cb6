"""RepE's emotion scenarios: 1,249 second-person sentences, six emotions (Zou et al., 2023)."""

from __future__ import annotations

import json
from pathlib import Path

from affectlens.core import EMOTIONS, DataError
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.datasets.splits import grouped_roles, grouped_split
from affectlens.datasets.tables.text_files import existing, read_text

CITE = 'Zou et al., 2023, "Representation Engineering", arXiv:2310.01405'


def repe(path: str | Path | None = None, *, seed: int = 0) -> Corpus:
    """Load the scenarios from a folder with the authors' files.

    Args:
        path: Folder with ``anger.json`` to ``surprise.json``, a list of sentences each
            (``data/emotions`` of the authors' repository).
        seed: Of the splits, which the authors do not give.

    Returns:
        Plain texts, each a group of its own; a sentence that comes twice under an emotion counts
        once, and one that stands under two emotions is left out.

    Raises:
        DataError: If no folder is given, or a file is not what it should be.
    """
    if path is None:
        raise DataError("Give RepE's scenarios a source: path= with the folder of anger.json.")
    found: dict[str, list[str]] = {}
    files = existing(Path(path), [f"{emotion}.json" for emotion in EMOTIONS])
    for emotion, file in zip(EMOTIONS, files, strict=True):
        for text in _sentences(file):
            told = found.setdefault(text, [])
            if emotion not in told:
                told.append(emotion)
    rows = [(text, told[0]) for text, told in found.items() if len(told) == 1]
    splits = grouped_split([text for text, _ in rows], strata=[e for _, e in rows], seed=seed)
    roles = grouped_roles([text for text, _ in rows], splits)
    records = tuple(
        Record(
            id=f"{emotion}_{number:04d}",
            messages=(Message("text", text),),
            emotion=emotion,
            valence=None,
            group=f"{emotion}_{number:04d}",
            theme="scenarios",
            split=split,
            meta={"role": role},
        )
        for number, ((text, emotion), split, role) in enumerate(
            zip(rows, splits, roles, strict=True)
        )
    )
    provenance = {"source": str(path), "licence": "MIT", "cite": CITE, "seed": seed}
    return Corpus("repe", "texts", records, provenance)


def _sentences(file: Path) -> list[str]:
    try:
        rows = json.loads(read_text(file))
    except ValueError as error:
        raise DataError(f"{file} is no JSON ({error}).") from None
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise DataError(f"{file} is no list of sentences.")
    return [" ".join(row.split()) for row in rows if row.strip()]
