"""Rating by people: what is shown in which order, what is noted, and how far it agrees.

A rater sees a text and nothing else, in an order that tells neither arm nor target, and presses two
keys: the tone, and how sure. Texts that are equal are rated once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from affectlens.core import DataError, fingerprint
from affectlens.core.errors import unknown

SURE: Mapping[str, str] = {"1": "guess", "2": "fairly sure", "3": "sure"}
"""Second key → what it means."""


@dataclass(frozen=True)
class Shown:
    """A text that is to be rated.

    Attributes:
        key: Hash of the text: what its rating is kept under.
        text: All that the rater sees.
        target: What was wanted, or ""; never shown before the end.
        arm: Where it comes from, or ""; never shown before the end.
    """

    key: str
    text: str
    target: str = ""
    arm: str = ""


@dataclass(frozen=True)
class Rating:
    """What a rater said.

    Attributes:
        key: Of the text.
        label: The tone.
        sure: One of the keys of :data:`SURE`.
        rater: A name.
    """

    key: str
    label: str
    sure: str
    rater: str

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON lines."""
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """Of a rater with a judge, on the texts that both gave a verdict on.

    Attributes:
        judge: Its name.
        n: Texts.
        agree: Share with the same label.
        kappa: Cohen's, beyond chance; NaN where nothing can be said.
        sure_n: Texts that the rater was sure of.
        sure_kappa: The same on them.
    """

    judge: str
    n: int
    agree: float
    kappa: float
    sure_n: int
    sure_kappa: float


def text_key(text: str) -> str:
    """What a text's rating is kept under."""
    return fingerprint(text)


def keys_of(labels: Sequence[str]) -> dict[str, str]:
    """A key for each label: its first letter that is free, else a digit from 0.

    Raises:
        DataError: If there are too many labels for keys.
    """
    taken: dict[str, str] = {}
    for label in labels:
        letters = [c for c in label.lower() if c.isascii() and c.isalpha() and c not in "qz"]
        free = next((c for c in [*letters, *"0123456789"] if c not in taken), None)
        if free is None:
            raise DataError(f"There is no key left for {label}; rate fewer labels.")
        taken[free] = label
    return taken


def sample(texts: Sequence[Shown], n: int | None, seed: int) -> list[Shown]:
    """The texts to rate: each once, in random order, arms and targets in turn.

    Args:
        texts: Any number; empty ones are left out.
        n: At most so many; None takes all.
        seed: Equal seeds give equal orders, so that a second rater sees the same texts.

    Raises:
        DataError: If no text is left.
    """
    once = list({shown.key: shown for shown in texts if shown.text.strip()}.values())
    if not once:
        raise DataError("There is no text to rate.")
    rng = random.Random(seed)
    cells: dict[tuple[str, str], list[Shown]] = {}
    for shown in sorted(once, key=lambda s: s.key):
        cells.setdefault((shown.arm, shown.target), []).append(shown)
    for members in cells.values():
        rng.shuffle(members)
    turns = [
        members[turn]
        for turn in range(max(map(len, cells.values())))
        for members in cells.values()
        if turn < len(members)
    ]
    chosen = turns[:n]
    rng.shuffle(chosen)
    return chosen


def kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Cohen's kappa of two raters; NaN without texts or where both say one label throughout."""
    from sklearn.metrics import cohen_kappa_score

    if not first or len({*first, *second}) < 2:
        return float("nan")
    return float(cohen_kappa_score(list(first), list(second)))


def agreement_with(judge: str, ratings: Sequence[Rating], chosen: Mapping[str, str]) -> Agreement:
    """How far a rater and a judge say the same.

    Args:
        judge: Its name.
        ratings: Of one rater.
        chosen: Key of a text → the judge's label; texts without a verdict are not in it.
    """
    both = [(r, chosen[r.key]) for r in ratings if r.key in chosen]
    sure = [(r, said) for r, said in both if r.sure == "3"]
    same = sum(r.label == said for r, said in both)
    return Agreement(
        judge=judge,
        n=len(both),
        agree=same / len(both) if both else float("nan"),
        kappa=kappa([r.label for r, _ in both], [said for _, said in both]),
        sure_n=len(sure),
        sure_kappa=kappa([r.label for r, _ in sure], [said for _, said in sure]),
    )


def heard_by_arm(texts: Sequence[Shown], ratings: Sequence[Rating]) -> dict[str, tuple[int, float]]:
    """Arm → number of rated texts with a target, and share in which the rater heard it."""
    said = {rating.key: rating.label for rating in ratings}
    found: dict[str, list[bool]] = {}
    for shown in texts:
        if shown.target and shown.key in said:
            found.setdefault(shown.arm, []).append(said[shown.key] == shown.target)
    return {arm: (len(hits), sum(hits) / len(hits)) for arm, hits in found.items()}


def rating_from(row: Mapping[str, Any], labels: Sequence[str]) -> Rating:
    """Inverse of `Rating.to_dict`.

    Raises:
        DataError: If the row is none.
        UnknownNameError: If its label is none of those that are rated.
    """
    try:
        rating = Rating(**row)
    except TypeError as error:
        raise DataError(f"A saved rating is damaged ({error}); delete its line.") from None
    if rating.label not in labels:
        raise unknown("label of a rating", rating.label, labels)
    if rating.sure not in SURE:
        raise unknown("sureness of a rating", rating.sure, SURE)
    return rating
