"""Words that name a feeling, to see where a text says what it should only let show."""

from __future__ import annotations

import re
from functools import cache

from affectlens.core import EMOTIONS
from affectlens.core.feelings import feeling_words


@cache
def _pattern(emotion: str | None) -> re.Pattern[str]:
    """Whole words of a feeling, of any if None."""
    named = feeling_words()["names"]
    entries = named[emotion] if emotion else [word for words in named.values() for word in words]
    words = "|".join(re.escape(entry).replace(r"\*", r"[a-z]*") for entry in entries)
    return re.compile(rf"\b(?:{words})\b", re.IGNORECASE)


def affect_words(text: str, emotion: str | None = None) -> list[str]:
    """The words of a text that name a feeling, in order.

    Args:
        text: Any English text.
        emotion: Only words that name this one (one of Ekman's six).
    """
    if emotion is not None and emotion not in EMOTIONS:
        return []
    return _pattern(emotion).findall(text)
