"""What was odd about reading a corpus: rows over several lines, missing and misspelt labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from affectlens.datasets.leakage.findings import Finding, LeakageLimits, count, some, verb
from affectlens.datasets.schema import Corpus

_MIN_LETTERS = 4  # a slip of the pen in a shorter label gives another word too easily


def reading_findings(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    """What a user should look at in the file that a corpus came from."""
    yield from _broken_rows(corpus, limits)
    yield from _unlabelled(corpus, limits)
    yield from _near_labels(corpus)


def _broken_rows(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    told: Sequence[Any] = corpus.provenance.get("broken_rows", ())
    broken = [record.id for record in corpus if record.id in set(told)]
    if broken:
        yield Finding(
            "line_breaks",
            f"{count(broken, 'row')} of the table {verb(broken, 'runs', 'run')} over several lines "
            f"inside quotes: {some(broken, limits)}; see that no row swallows others.",
            tuple(broken),
        )


def _unlabelled(corpus: Corpus, limits: LeakageLimits) -> Iterator[Finding]:
    without = [record.id for record in corpus if record.emotion is None]
    not_read: Sequence[Any] = corpus.provenance.get("not_read", ())
    if without and len(without) < len(corpus):
        yield Finding(
            "unlabelled",
            f"{len(without)} of {count(corpus.records, 'record')} {verb(without, 'has', 'have')} "
            f"no label: {some(without, limits)}.",
            tuple(without),
        )
    elif without and not_read:
        yield Finding(
            "unlabelled",
            f"No record has a label, and these columns were not read: "
            f"{some(map(str, not_read), limits)}; name the one with the labels.",
        )


def _near_labels(corpus: Corpus) -> Iterator[Finding]:
    """Labels one slip of the pen apart, if one of them is rare."""
    found = Counter(record.emotion for record in corpus if record.emotion is not None)
    for one, other in combinations(corpus.labels(), 2):
        if min(len(one), len(other)) >= _MIN_LETTERS and _one_slip(one.lower(), other.lower()):
            yield Finding(
                "near_labels",
                f"The labels {one!r} ({found[one]} records) and {other!r} ({found[other]}) are "
                "nearly the same; if they mean one, write it one way.",
                (one, other),
            )


def _one_slip(one: str, other: str) -> bool:
    """Whether a letter too many, missing, wrong or two swapped make one name the other."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next(
        (i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short)
    )
    rest, other_rest = short[start:], long[start:]
    if len(short) < len(long):
        return rest == other_rest[1:]
    swapped = rest[:2] == other_rest[:2][::-1] and rest[2:] == other_rest[2:]
    return rest[1:] == other_rest[1:] or swapped
