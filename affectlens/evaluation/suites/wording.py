"""Is a word in a reply? Whole words, whatever their case."""

from __future__ import annotations

import re
from collections.abc import Sequence


def says(reply: str, words: Sequence[str]) -> bool:
    """Whether a reply holds one of some words or phrases, as whole words.

    "12" is not in "120", "no" is not in "nobody", and 1,200 is read as one number.
    """
    plain = " ".join(reply.replace("’", "'").lower().split())
    return any(_pattern(word).search(plain) for word in words)


def _pattern(word: str) -> re.Pattern[str]:
    inside = r"\s+".join(map(re.escape, word.lower().split()))
    # A digit may not go on before or behind, with or without a sign that joins numbers.
    return re.compile(rf"(?<![\w])(?<!\d[.,]){inside}(?!\w)(?![.,]\d)")
