"""Which runs of characters stand in the text: endings, spelling, punctuation."""

from __future__ import annotations

from typing import Any

from affectlens.sweeps.controls.base import Control, Row, Setting
from affectlens.sweeps.controls.text_models import text_baseline


def _characters() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)


def char_ngrams(setting: Setting) -> list[Row]:
    """Runs of one to four characters within words, under a linear model."""
    found = text_baseline(setting, _characters)
    return setting.beside("char_ngrams", found, note="runs of 1 to 4 characters")


CHAR_NGRAMS = Control(
    "char_ngrams",
    "a linear model of runs of one to four characters",
    "The probe only reads spelling and word endings.",
    char_ngrams,
    numbers=True,
)
