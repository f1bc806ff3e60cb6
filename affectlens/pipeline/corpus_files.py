"""Corpora between the stages: what the model expressed, and what vectors are refined on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core import ArtefactError, DataError, UnknownNameError
from affectlens.core.jsonl import read_jsonl, write_jsonl
from affectlens.pipeline.rules import IMPLICIT

if TYPE_CHECKING:
    from affectlens.datasets import Corpus
    from affectlens.pipeline.rules import RefineMix
    from affectlens.pipeline.stage import StageRun

EXPRESSION = "expression.jsonl"


def expressed(run: StageRun) -> Corpus:
    """The corpus of the stage ``express``."""
    return load_corpus(run.input("express", EXPRESSION))


def refine_corpora(run: StageRun, mix: RefineMix, emotions: Sequence[str]) -> list[Corpus]:
    """What vectors are refined on, in the order of the mix."""

    def authored(name: str) -> Corpus:
        return run.corpus(name).filter(role="direction", emotion=tuple(emotions))

    shown = authored(IMPLICIT) if IMPLICIT in mix.pools else None
    return mixed(expressed(run), authored("replies"), mix, shown)


def mixed(
    expression: Corpus, replies: Corpus, mix: RefineMix, shown: Corpus | None = None
) -> list[Corpus]:
    """The pools of a mix, in its order.

    Args:
        expression: What the model expressed, its own replies and the authored tones.
        replies: Matched replies of the role ``direction``.
        mix: Which, and how often, and in which style.
        shown: Replies of the role ``direction`` without a word for a feeling, if the mix has them.
    """
    from affectlens.datasets import Corpus
    from affectlens.pipeline.styles import STYLES

    pools: Mapping[str, Corpus] = {
        **{
            name: Corpus(name, "replies", tuple(r for r in expression if _from(name, r.group)))
            for name in ("own", "tones")
            if name in mix.pools
        },
        "replies": replies,
        **({} if shown is None else {IMPLICIT: shown}),
    }
    return list(STYLES[mix.style].pools([pools[name] for name in mix.pools]))


def _from(pool: str, group: str) -> bool:
    return group.startswith(f"{pool}:")


def save_corpus(corpus: Corpus, path: Path) -> None:
    """Write the records of a corpus as JSON lines."""
    rows = [
        {
            "id": r.id,
            "messages": list(r.chat),
            "emotion": r.emotion,
            "valence": r.valence,
            "group": r.group,
            "theme": r.theme,
            "split": r.split,
            "meta": dict(r.meta),
        }
        for r in corpus
    ]
    header = {"name": corpus.name, "design": corpus.design, "labels": list(corpus.label_set)}
    write_jsonl(path, (header, *rows))


def load_corpus(path: Path) -> Corpus:
    """Inverse of `save_corpus`.

    Raises:
        ArtefactError: If the file is missing or damaged.
    """
    from affectlens.datasets import Corpus, Message, Record

    try:
        header, *rows = [dict(row) for row in read_jsonl(path)]
        records: list[Record] = []
        for row in rows:
            fields: dict[str, Any] = dict(row)
            fields["messages"] = tuple(Message(**m) for m in row["messages"])
            records.append(Record(**fields))
        labels = tuple(str(label) for label in header["labels"])
        return Corpus(str(header["name"]), str(header["design"]), tuple(records), {}, labels)
    except (ValueError, KeyError, TypeError, DataError, UnknownNameError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); delete it and run again.") from error
