"""Length, capitals and punctuation: what a text looks like from afar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from affectlens.sweeps.controls.base import Control, Row, Setting
from affectlens.sweeps.controls.text_models import text_baseline

MARKS = ".,;:!?…-–—'\"()"


def looks(text: str) -> list[float]:
    """Characters, words, their mean length, lines, shares of capitals and digits, each mark."""
    words = text.split()
    n = max(1, len(text))
    return [
        float(np.log1p(len(text))),
        float(np.log1p(len(words))),
        float(np.mean([len(word) for word in words])) if words else 0.0,
        float(text.count("\n")),
        sum(c.isupper() for c in text) / n,
        sum(c.isdigit() for c in text) / n,
        *(float(text.count(mark)) for mark in MARKS),
    ]


def _surface() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    def all_looks(texts: Sequence[str]) -> Any:
        return np.array([looks(text) for text in texts])

    return make_pipeline(FunctionTransformer(all_looks), StandardScaler())


def surface(setting: Setting) -> list[Row]:
    """A linear model of length, capitals and punctuation."""
    found = text_baseline(setting, _surface)
    return setting.beside("surface", found, note="length, capitals and punctuation only")


SURFACE = Control(
    "surface",
    "a linear model of length, capitals and punctuation",
    "Texts of one class are longer, or shout.",
    surface,
    numbers=True,
)
