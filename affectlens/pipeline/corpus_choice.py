"""A corpus as the command line names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import DataError
from affectlens.core.emotions import LABEL_SETS, import_labels
from affectlens.core.emotions.ontology import SUFFIX
from affectlens.core.jsonl import split_lines

if TYPE_CHECKING:
    from affectlens.datasets import Corpus

Names = Sequence[str] | None
_FOREIGN = ("goemotions", "emobank", "repe")


@dataclass(frozen=True)
class CorpusChoice:
    """A corpus and which of its records.

    Attributes:
        name: Of a corpus, or a JSON, JSONL or CSV file.
        columns: ``field=column`` for a file; ``field=`` for a field that is not read.
        path: Folder of a third-party corpus.
        labels: Label set of a file: a name of `affectlens list label_sets`, names with commas
            between them, a file with one a line or an ontology (``.jsonld``), or ``any``; of
            GoEmotions ``original`` or a set that its labels are mapped to.
        several: What to do with rows that have several labels: ``refuse``, ``first`` or ``drop``.
        split, role, emotion: Which records to keep; all if None.
        others: What to do with rows whose label is not in the set: ``refuse`` or ``drop``.
    """

    name: str
    columns: Names = None
    path: Path | None = None
    labels: str | None = None
    several: str | None = None
    split: Names = None
    role: Names = None
    emotion: Names = None
    others: str | None = None

    @classmethod
    def among(
        cls,
        name: str,
        names: Sequence[str],
        columns: Names,
        path: Path | None,
        labels: str | None,
        several: str | None,
    ) -> CorpusChoice:
        """One of several corpora, with the options that are meant for it.

        Of files are the columns, the labels (GoEmotions has a choice of its own) and what becomes
        of several; of a corpus that others have made, the folder.

        Raises:
            DataError: If an option is given that is of none of them.
        """
        files = [one for one in names if Path(one).suffix]
        others = [one for one in names if one in _FOREIGN]
        given = {"--column": columns, "--several": several}
        for option in (option for option, value in given.items() if value and not files):
            raise DataError(f"{option} is for a file of your own, and no corpus is one.")
        if path is not None and not others:
            raise DataError(f"--path is the folder of {' or '.join(_FOREIGN)}; name one of them.")
        is_file = name in files
        takes_labels = is_file or name == "goemotions"
        return cls(
            name,
            columns if is_file else None,
            path if name in others else None,
            labels if takes_labels else None,
            several if is_file else None,
        )

    def load(self, keep: Sequence[str] = (), *, split_file: bool = True) -> Corpus:
        """The records that are wanted.

        Args:
            keep: Of a file: columns whose cells go into ``meta``.
            split_file: Whether a file without a column for it is split into fit, tune and test; if
                not, all of it is for fitting.

        Raises:
            DataError: If an option cannot be read, or the files are wrong.
            UnknownNameError: If there is no such corpus, label or record.
        """
        from affectlens.datasets import load

        more: dict[str, Any] = {"keep": keep} if keep else {}
        if not split_file:
            more["fractions"] = {"fit": 1.0}
        corpus = load(self.name, **self._options(), **more)
        wanted = {"split": self.split, "role": self.role, "emotion": self.emotion}
        given = {name: list(values) for name, values in wanted.items() if values}
        return corpus.filter(**given) if given else corpus

    def _options(self) -> dict[str, Any]:
        """For the loader."""
        options: dict[str, Any] = {}
        if self.columns:
            options["columns"] = _columns(self.columns)
        if self.path is not None:
            options["path"] = self.path
        if self.labels is not None and self.name == "goemotions":
            options["mapping"] = self.labels
        elif self.labels is not None:
            options["emotions"] = label_names(self.labels)
        if self.several is not None:
            options["several"] = self.several
        if self.others is not None:
            options["others"] = self.others
        return options


def label_names(text: str) -> list[str] | None:
    """Names of labels as ``--labels`` gives them; None for any.

    A label set that goes by name, or lies in an ontology file, brings the neutral label along.

    Raises:
        DataError: If the file that is named has none, or cannot be read.
    """
    from affectlens.datasets.tables.text_files import read_text

    if text.strip().lower() == "any":
        return None
    if text in LABEL_SETS:
        return list(LABEL_SETS[text].with_neutral)
    if "," not in text and Path(text).suffix.lower() == SUFFIX:
        return list(import_labels(text).with_neutral)
    if "," not in text and Path(text).is_file():
        return [line.strip() for _, line in split_lines(read_text(Path(text)))]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2:
        raise DataError(
            f"--labels {text!r} is neither a file nor several names nor one of "
            f"{', '.join(LABEL_SETS)}; write for example --labels joy,trust,fear, or --labels any."
        )
    return names


def _columns(given: Sequence[str]) -> dict[str, str | None]:
    pairs = [column.partition("=") for column in given]
    if not all(key and sign for key, sign, _ in pairs):
        raise DataError("Columns are given as field=column, for example --column text=body.")
    named = [key for key, _, _ in pairs]
    for key in named:
        if named.count(key) > 1:
            raise DataError(f"--column names {key} twice; give one column for it.")
    return {key: value or None for key, _, value in pairs}
