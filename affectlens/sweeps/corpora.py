"""The corpora of a sweep: their texts, what is read of them, and what fits; before any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.core.errors import AffectLensError, DataError, unknown
from affectlens.datasets.loaders.user_file import SUFFIXES
from affectlens.probes.design import make_design
from affectlens.probes.targets import COLUMNS, Labels, Target, available, renamed, target_of

if TYPE_CHECKING:
    from affectlens.datasets import Corpus
    from affectlens.pipeline.corpus_choice import CorpusChoice
    from affectlens.sweeps.request import SweepRequest

_FIELDS = ("emotion", "group", "scenario", "theme", "split", "id", "role")
_BARE = ("role", "scenario")


@dataclass(frozen=True)
class Texts:
    """A corpus, ready to be read.

    Attributes:
        name: Of the corpus; two of one name are told apart by a number.
        corpus: Its records, with the columns that are asked for in ``meta``.
    """

    name: str
    corpus: Corpus

    @property
    def bare(self) -> Corpus:
        """Without what no capture depends on, so that every target shares one store."""
        records = tuple(
            replace(r, meta={k: v for k, v in r.meta.items() if k in _BARE}) for r in self.corpus
        )
        return replace(self.corpus, records=records)

    def target(
        self, name: str, ids: Sequence[str] | None = None, names: Mapping[str, str] | None = None
    ) -> Target:
        """What is read of records, in their order or that of ``ids``, its labels renamed."""
        found = target_of(self.corpus, name, ids)
        if isinstance(found, Labels) and names:
            mine = {old: new for old, new in names.items() if old in found.classes}
            return renamed(found, mine) if mine else found
        return found

    def groups(self, name: str, ids: Sequence[str] | None = None) -> list[str]:
        """Group of each record.

        Raises:
            UnknownNameError: If no record has it.
            DataError: If some have none.
        """
        of_record = {
            r.id: getattr(r, name) if name in (*COLUMNS, "id") else r.meta.get(name)
            for r in self.corpus
        }
        if all(value is None for value in of_record.values()):
            raise unknown(f"column to group by in {self.name}", name, available(self.corpus))
        lacking = [id_ for id_, value in of_record.items() if value is None]
        if lacking:
            raise DataError(f"Record {lacking[0]} of {self.name} has no {name} to group by.")
        return [str(of_record[id_]) for id_ in (of_record if ids is None else ids)]


def load_texts(request: SweepRequest) -> list[Texts]:
    """Load every corpus, and refuse what could not be fitted before a model is loaded.

    Raises:
        DataError, UnknownNameError: Naming the corpus.
    """
    found: list[Texts] = []
    for choice in request.corpora:
        corpus = _with_columns(choice, (*request.targets, request.group))
        same = sum(one.corpus.name == corpus.name for one in found)
        found.append(Texts(f"{corpus.name}-{same + 1}" if same else corpus.name, corpus))
    for texts in found:
        for name in request.targets:
            try:
                _check(texts, name, request)
            except AffectLensError as error:
                raise type(error)(f"{texts.name}: {error}") from error
    for old in request.names:
        if not any(old in _classes(t, n) for t in found for n in request.targets):
            raise unknown(
                "label to rename",
                old,
                [c for t in found for n in request.targets for c in _classes(t, n)],
            )
    return found


def _classes(texts: Texts, name: str) -> tuple[str, ...]:
    found = texts.target(name)
    return found.classes if isinstance(found, Labels) else ()


def _check(texts: Texts, name: str, request: SweepRequest) -> None:
    target = texts.target(name, names=request.names)
    request.probes_of(numbers=not isinstance(target, Labels))
    splits = [record.split for record in texts.corpus]
    make_design(
        target, splits, texts.groups(request.group), request.fitting.folds, request.fitting.seed
    )


def _with_columns(choice: CorpusChoice, names: Sequence[str]) -> Corpus:
    """A corpus; of a file with the columns that are asked for.

    A file that says nothing of splits is scored as a whole, by nested cross-validation.
    """
    if Path(choice.name).suffix.lower() not in SUFFIXES:
        return choice.load()
    kept = [name for name in dict.fromkeys(names) if name not in _FIELDS]
    return choice.load(keep=kept, split_file=False)
