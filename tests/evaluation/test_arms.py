"""`measure` against a count by hand, with judges whose verdicts are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from affectlens.core import DataError, UnknownNameError
from affectlens.evaluation.arms import Reply, measure


@dataclass(frozen=True)
class Verdicts:
    chosen: tuple[str, ...]


class FirstWord:
    """Takes the first word for the emotion."""

    name = "first word"
    labels = ("anger", "fear", "neutral", "garbled")

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        return Verdicts(tuple(t.split()[0] if t else "garbled" for t in texts))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Two topics: texts about trains, and others."""
    return np.array([[1.0, 0.0] if "train" in t else [0.6, 0.8] for t in texts])


def reply(text: str, emotion: str = "", nll: float = 1.0, event: str = "e1", n: int = 10) -> Reply:
    return Reply("x", event, event, "negative", emotion, "the train", text, n, nll)


BASE = [reply("neutral train a b"), reply("fear train a b", event="e2")]


def test_by_hand() -> None:
    rows = [
        reply("anger train x y", "anger", nll=1.0 + math.log(4)),
        reply("fear shop x y", "anger", event="e2"),
        reply("fear shop x y", "fear", event="e2"),
        reply("", "fear", nll=float("nan"), event="e1", n=0),
    ]
    out = measure(
        rows, BASE, judge=FirstWord(), lexicon=FirstWord(), embed=embed, emotions=("anger", "fear")
    )
    assert out.accuracy == 0.5
    assert out.per_emotion == {"anger": 0.5, "fear": 0.5}
    assert out.found["garbled"] == 0.25
    assert out.perplexity_ratio == pytest.approx(math.exp(math.log(4) / 3))
    assert out.topic == pytest.approx((1 + 0.6 + 0.6 + 0.6) / 4)
    # Hit, on topic, fluency 1/2 → 3/(1+1+2); hit, topic .6 → 3/(1+1/.6+1); two misses.
    assert out.harmonic == pytest.approx((3 / 4 + 3 / (2 + 1 / 0.6)) / 4)
    assert 0 <= out.accuracy_ci[0] <= 0.5 <= out.accuracy_ci[1] <= 1


def test_unsteered_counts_for_every_target() -> None:
    out = measure(
        BASE, BASE, judge=FirstWord(), lexicon=FirstWord(), embed=embed, emotions=("anger", "fear")
    )
    assert out.accuracy == 0.25
    assert out.per_emotion == {"anger": 0.0, "fear": 0.5}
    assert out.perplexity_ratio == pytest.approx(1.0)


def test_blindness_to_arm_and_order() -> None:
    rows = [reply("anger x", "anger"), reply("fear x", "fear", event="e2")]
    kwargs = {"judge": FirstWord(), "lexicon": FirstWord(), "embed": embed}
    one = measure(rows, BASE, **kwargs)
    other = measure(rows[::-1], BASE[::-1], **kwargs)
    assert one.accuracy == other.accuracy == 1.0
    assert one.harmonic == pytest.approx(other.harmonic)


def test_bad_input() -> None:
    kwargs = {"judge": FirstWord(), "lexicon": FirstWord(), "embed": embed}
    with pytest.raises(DataError):
        measure([], BASE, **kwargs)
    with pytest.raises(UnknownNameError):
        measure([reply("x", "joyfulness")], BASE, **kwargs)


def test_saved_reply_round_trip() -> None:
    empty = reply("", "fear", nll=float("nan"))
    back = Reply.from_dict(empty.to_dict())
    assert math.isnan(back.nll) and back.to_dict() == empty.to_dict()
    with pytest.raises(DataError):
        Reply.from_dict({"arm": "x"})
