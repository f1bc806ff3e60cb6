"""Metrics of replies against counting by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from affectlens.core import DataError
from affectlens.evaluation import text_metrics as metrics
from affectlens.evaluation.perplexity import perplexity_ratio


def test_distinct_and_repetition_by_hand() -> None:
    assert metrics.distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert metrics.distinct_n(["A b a B"], 2) == pytest.approx(2 / 3)
    assert metrics.distinct_n(["a b c d", "x x x"], 2) == pytest.approx((1 + 1 / 2) / 2)
    assert metrics.distinct_n(["one"], 2) == 0.0
    assert metrics.repetition_rate(["a b c a b c a b c"], 3) == pytest.approx(1 - 3 / 7)
    assert metrics.repetition_rate(["a"], 3) == 0.0


def test_capitals_count_words_not_letters() -> None:
    assert metrics.capitals_rate(["I AM VERY tired now"]) == pytest.approx(1 / 3)
    assert metrics.capitals_rate(["I A"]) == 0.0


def test_harmonic_mean() -> None:
    assert metrics.harmonic([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert metrics.harmonic([1.0, 0.0, 1.0]) == 0.0


def test_fluency_is_linear_in_nats() -> None:
    assert metrics.fluency_score(-1.0) == 1.0
    assert metrics.fluency_score(math.log(4)) == pytest.approx(0.5)
    assert metrics.fluency_score(math.log(16)) == pytest.approx(0.0)
    assert metrics.fluency_score(99.0) == 0.0


def test_perplexity_ratio_pools_over_tokens() -> None:
    ratio = perplexity_ratio(np.array([1.0, 3.0]), [1, 3], np.array([1.0]), [7])
    assert ratio == pytest.approx(math.exp((1 + 9) / 4 - 1))
    with_empty = perplexity_ratio(np.array([1.0, np.nan, 3.0]), [1, 0, 3], np.array([1.0]), [7])
    assert with_empty == pytest.approx(ratio)
    with pytest.raises(DataError):
        perplexity_ratio(np.array([np.nan]), [0], np.array([1.0]), [7])
