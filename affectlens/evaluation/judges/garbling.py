"""Text like that of a model that was steered too hard, made from good text.

A judge that was trained on good text alone finds anger in ``angry angry angry``; steering would
then look best where it destroys the language. Corrupted texts teach a judge to refuse, and test it.
Everything is seeded: equal arguments give equal texts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from affectlens.core.errors import unknown
from affectlens.evaluation.judges.corruptions import CORRUPTIONS, TRAINED, Draft


@dataclass(frozen=True)
class Garbled:
    """One corrupted text and how it was made."""

    kind: str
    text: str


def garble(
    texts: Sequence[str],
    n: int,
    *,
    seed: int,
    pieces: Sequence[str],
    kinds: Sequence[str] = tuple(TRAINED),
) -> list[Garbled]:
    """Corrupt randomly chosen texts, each kind equally often.

    Args:
        texts: Good texts; empty ones are left out.
        n: How many corrupted texts to make.
        seed: Equal seeds give equal texts.
        pieces: Vocabulary for random text.
        kinds: Keys of `CORRUPTIONS`; by default those that judges are trained on.

    Raises:
        UnknownNameError: If a kind does not exist.
    """
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise unknown("corruption", kind, CORRUPTIONS)
    rng = random.Random(seed)
    good = [text for text in texts if text.strip()]
    made: list[Garbled] = []
    for index in range(n):
        kind = kinds[index % len(kinds)]
        draft = Draft(rng.choice(good).split(), rng, good, pieces)
        made.append(Garbled(kind, CORRUPTIONS[kind](draft)))
    return made


def cut_short(text: str, rng: random.Random, least_words: int = 6) -> str:
    """Cut a text somewhere in its second half, as a token limit does; short texts stay whole."""
    words = text.split()
    least = max(least_words, len(words) // 2)
    return text if len(words) <= least else " ".join(words[: rng.randint(least, len(words) - 1)])
