"""Numbers about replies that need no model: repetition, diversity, capitals, scores.

Definitions follow the evaluation protocol of AxBench (arXiv 2501.17148) where it has one: the score
of a reply is a harmonic mean that is zero when any part is zero, and arms are compared by its mean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """Words of a text, in their original case."""
    return _WORD.findall(text)


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of different n-grams among all n-grams of each text, averaged over texts.

    Per text rather than pooled, so that the figure does not fall with the number of texts.
    A text shorter than ``n`` words has no n-gram and is left out; 0.0 if all are.
    """
    shares: list[float] = []
    for text in texts:
        tokens = [w.lower() for w in words(text)]
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        if grams:
            shares.append(len(set(grams)) / len(grams))
    return float(np.mean(shares)) if shares else 0.0


def repetition_rate(texts: Sequence[str], n: int = 3) -> float:
    """Share of n-grams that already occurred earlier in the same text: 1 - distinct-n."""
    usable = [t for t in texts if len(words(t)) >= n]
    return 1.0 - distinct_n(usable, n) if usable else 0.0


def capitals_rate(texts: Sequence[str]) -> float:
    """Share of words of three or more letters written in capitals only, over all texts."""
    long_words = [w for text in texts for w in words(text) if len(w) >= 3]
    return sum(w.isupper() for w in long_words) / len(long_words) if long_words else 0.0


def mean_words(texts: Sequence[str]) -> float:
    """Mean length of a text in words."""
    return float(np.mean([len(words(t)) for t in texts])) if texts else 0.0


def harmonic(parts: Sequence[float]) -> float:
    """Harmonic mean of scores in [0, 1]; zero as soon as one of them is zero."""
    if any(p <= 0 for p in parts):
        return 0.0
    return len(parts) / sum(1.0 / p for p in parts)


FLUENCY_ZERO = 16.0
"""Perplexity ratio at which the fluency score reaches 0; it falls linearly in nats from 1."""


def fluency_score(excess_nats: float) -> float:
    """Map mean extra nats per token under the unsteered model to a score in [0, 1].

    1 at (or under) the perplexity of unsteered text, 0.5 at four times it, 0 at sixteen times it.
    """
    return min(1.0, max(0.0, 1.0 - excess_nats / math.log(FLUENCY_ZERO)))
