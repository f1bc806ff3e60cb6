"""`measure` against counts by hand and by brute force, with judges whose verdicts are known."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pytest

from affectlens.core import EMOTIONS, DataError, UnknownNameError
from affectlens.core.statistics import bootstrap_interval
from affectlens.evaluation.arm_metrics import ArmMetrics, measure, summarise
from affectlens.evaluation.naming import copies_opener, mask_feelings, without_first_sentence
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.reply_scores import Scores, score_replies


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


class Cue:
    """Hears the emotion whose cue stands last: half of the cues are feeling words, half are not."""

    name = "cue"
    labels = (*EMOTIONS, "neutral", "garbled")
    cues = {  # noqa: RUF012
        "furious": "anger", "table": "anger", "scared": "fear", "window": "fear",
        "delighted": "happiness", "garden": "happiness",
    }  # fmt: skip
    asked: tuple[str, ...] = ()

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        self.asked = (*self.asked, *texts)
        heard = [
            [self.cues[w] for w in t.replace(".", "").split() if w in self.cues] for t in texts
        ]
        return Verdicts(tuple(h[-1] if h else "neutral" for h in heard))


def made_up(n: int = 60, seed: int = 0, targets: Sequence[str] = EMOTIONS) -> list[Reply]:
    rng = random.Random(seed)
    rows: list[Reply] = []
    for event in range(n // len(targets)):
        for emotion in targets:
            words = rng.choices([*Cue.cues, "the", "train", "late"], k=9)
            text = (
                f"{' '.join(words[:4])}. So {' '.join(words[4:])}."
                if rng.random() < 0.8
                else words[0]
            )
            if rng.random() < 0.3:
                text = f"I'm furious about this. A {text}"
            rows.append(
                Reply("x", f"e{event}", f"s{event // 3}", "", emotion, "the train", text, 9, 1.0)
            )
    return rows


def test_new_columns_by_brute_force() -> None:
    rows, openers = made_up(240), ["I'm furious about this.", "How vile!"]
    judge = Cue()
    out = measure(rows, BASE, judge=judge, lexicon=Cue(), embed=embed, openers=openers, seed=3)

    def hear(text: str) -> str:
        return Cue()([text]).chosen[0]

    scored = {
        "accuracy": [hear(r.text) == r.emotion for r in rows],
        "masked_accuracy": [
            bool(mask_feelings(r.text)) and hear(mask_feelings(r.text)) == r.emotion for r in rows
        ],
        "later_accuracy": [
            bool(without_first_sentence(r.text))
            and hear(without_first_sentence(r.text)) == r.emotion
            for r in rows
        ],
        "copied_openers": [copies_opener(r.text, openers) for r in rows],
    }
    shares = {name: sum(hits) / len(rows) for name, hits in scored.items()}
    assert len(set(shares.values())) == 4 and all(shares.values())
    for name, hits in scored.items():
        assert getattr(out, name) == pytest.approx(shares[name])
        ci = bootstrap_interval([float(h) for h in hits], [r.group for r in rows], random=3)
        assert getattr(out, f"{name}_ci") == pytest.approx(ci)
        assert ci[0] < shares[name] < ci[1]
    assert len(set(judge.asked)) == len(judge.asked)  # equal texts are judged once
    assert "" not in judge.asked


def test_harmonic_on_masked_hits() -> None:
    """Naming alone scores on the plain hit and not on the masked one; nothing else differs."""
    names = [reply("I am furious train", "anger"), reply("a table train", "anger", event="e2")]
    out = measure(names, BASE, judge=Cue(), lexicon=Cue(), embed=embed)
    assert (out.accuracy, out.masked_accuracy) == (1.0, 0.5)
    assert out.harmonic == pytest.approx(1.0)
    assert out.masked_harmonic == pytest.approx(0.5)


def test_nothing_left_is_a_miss_even_for_a_judge_that_always_hears_the_target() -> None:
    class Anger(Cue):
        def __call__(self, texts: Sequence[str]) -> Verdicts:
            return Verdicts(("anger",) * len(texts))

    one = [reply("Furious!", "anger"), reply("Furious train.", "anger", event="e2")]
    out = measure(one, BASE, judge=Anger(), lexicon=Cue(), embed=embed)
    assert (out.accuracy, out.masked_accuracy, out.later_accuracy) == (1.0, 0.5, 0.0)


def test_a_single_scenario_has_no_interval() -> None:
    out = measure([reply("anger x", "anger")], BASE, judge=Cue(), lexicon=Cue(), embed=embed)
    intervals = [f.name for f in fields(ArmMetrics) if f.name.endswith("_ci")]
    assert len(intervals) == 6
    assert all(math.isnan(end) for name in intervals for end in getattr(out, name))


def test_all_rows_of_scores_are_in_one_order() -> None:
    rows = made_up()
    scores = score_replies(rows[::-1], BASE, judge=Cue(), lexicon=Cue(), embed=embed)
    assert scores.events == tuple(r.event for r in rows[::-1])
    assert scores.targets == tuple(r.emotion for r in rows[::-1])
    row = {f.name for f in fields(Scores)} - {
        "replies", "which", "labels", "chosen", "cosine", "perplexity_ratio",
    }  # fmt: skip
    assert {len(getattr(scores, name)) for name in row} == {len(rows)}
    forward = score_replies(rows, BASE, judge=Cue(), lexicon=Cue(), embed=embed)
    assert np.array_equal(scores.masked, forward.masked[::-1])
    assert summarise(scores, seed=1).accuracy == summarise(forward, seed=1).accuracy
    json.dumps(asdict(summarise(forward)))


def test_parts_are_judged_only_where_they_are_wanted() -> None:
    rows, judge = made_up(), Cue()
    found = score_replies(rows, BASE, judge=judge, lexicon=Cue(), embed=embed, naming=False)
    assert set(judge.asked) == {r.text for r in rows}
    assert np.isnan(found.masked).all() and np.isnan(found.later).all()
    full = score_replies(rows, BASE, judge=Cue(), lexicon=Cue(), embed=embed)
    assert np.array_equal(found.hit, full.hit) and np.array_equal(found.harmonic, full.harmonic)


def test_replies_without_a_verdict_are_neither_hit_nor_miss() -> None:
    """The numbers are those of the replies that were judged; the share left out is told."""
    replies = made_up(60)
    silent = {reply.text for reply in replies[::4]}

    class Patchy(Cue):
        def __call__(self, texts: Sequence[str]) -> Verdicts:
            said = super().__call__(texts).chosen
            return Verdicts(
                tuple("unjudged" if t in silent else s for t, s in zip(texts, said, strict=True))
            )

    plain = [replace(reply, emotion="") for reply in replies[:6]]
    options = {"lexicon": Cue(), "embed": lambda texts: np.ones((len(texts), 1))}
    found = measure(replies, plain, judge=Patchy(), **options)
    whole = score_replies(replies, plain, judge=Cue(), **options)
    known = [row for row, reply in enumerate(replies) if reply.text not in silent]
    assert found.unjudged == pytest.approx(1 - len(known) / len(replies)) and found.unjudged > 0.2
    assert found.accuracy == pytest.approx(whole.hit[known].mean())
    assert found.harmonic == pytest.approx(whole.harmonic[known].mean())
    assert sum(found.found.values()) == pytest.approx(1)
