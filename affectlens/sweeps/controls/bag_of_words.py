"""Which words stand in the text, whatever their order."""

from __future__ import annotations

from typing import Any

from affectlens.sweeps.controls.base import Control, Row, Setting
from affectlens.sweeps.controls.text_models import text_baseline


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")


def bag_of_words(setting: Setting) -> list[Row]:
    """Words and pairs of words, weighted by how rare they are, under a linear model."""
    found = text_baseline(setting, _words)
    return setting.beside("bag_of_words", found, note="words and pairs of words")


BAG_OF_WORDS = Control(
    "bag_of_words",
    "a linear model of the words and pairs of words of the text",
    "The probe only reads which words stand in the text.",
    bag_of_words,
    numbers=True,
)
