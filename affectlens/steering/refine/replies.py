"""The replies that vectors are refined on: groups of one prompt answered in every emotion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from affectlens.core import DataError, group_name
from affectlens.core.groups import Groups

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record

Group = tuple["Record", ...]


def listed(corpora: Corpus | Sequence[Corpus]) -> list[Corpus]:
    """One corpus or several, as a list."""
    from affectlens.datasets.schema import Corpus

    return [corpora] if isinstance(corpora, Corpus) else list(corpora)


def fingerprints(corpora: Corpus | Sequence[Corpus]) -> list[str]:
    """Of each corpus."""
    return [corpus.fingerprint for corpus in listed(corpora)]


def complete_groups(corpus: Corpus, emotions: Sequence[str]) -> list[Group]:
    """Groups with a reply in every emotion, members in the order of the emotions.

    A group with several replies in an emotion gives as many groups as its richest emotion has
    replies; those of the others come round again.
    """
    records = list(corpus)
    labels, keys = [r.emotion for r in records], [r.group_key for r in records]
    answered = [i for i, r in enumerate(records) if r.emotion in emotions and r.reply is not None]
    groups: list[Group] = []
    for key, rows in Groups.find(labels, keys, emotions, answered).complete().cells.items():
        cell = {emotion: [records[i] for i in rows[emotion]] for emotion in emotions}
        prompts = {record.messages[:-1] for found in cell.values() for record in found}
        if len(prompts) > 1:
            raise DataError(
                f"Group {group_name(key)} of corpus {corpus.name} has different prompts, but "
                "refining compares replies to one; give each prompt a group of its own."
            )
        for i in range(max(len(found) for found in cell.values())):
            groups.append(tuple(cell[e][i % len(cell[e])] for e in emotions))
    if not groups:
        raise DataError(
            f"Corpus {corpus.name} has no group with a reply in every one of "
            f"{', '.join(emotions)}; nothing can be refined on it."
        )
    return groups
