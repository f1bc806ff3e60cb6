"""Arms against each other, on scores that were made up."""

from __future__ import annotations

import math
import random
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from affectlens.core import DataError, UnknownNameError
from affectlens.core.statistics import against_draws, paired_difference
from affectlens.evaluation.comparisons import MEASURES, compare, compare_draws
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.reply_scores import Scores
from affectlens.evaluation.text_metrics import harmonic

TARGETS = ("anger", "fear")


def scores(seed: int, *, shuffled: bool = False, events: int = 24) -> Scores:
    rng = np.random.default_rng(seed)
    rows = [(f"e{i}", f"s{i // 2}", target) for i in range(events) for target in TARGETS]
    values = (rng.random((7, len(rows))) < 0.6).astype(float)
    values[5:] = rng.random((2, len(rows)))
    order = list(range(len(rows)))
    if shuffled:
        random.Random(seed).shuffle(order)
    replies = tuple(Reply("x", rows[i][0], rows[i][1], "", rows[i][2], "", "", 0, 1) for i in order)
    hit, masked, later, copied, lexicon, topic, fluency = values[:, order]
    return Scores(
        replies=replies,
        which=np.arange(len(rows)),
        labels=TARGETS,
        chosen=("anger",) * len(rows),
        cosine=topic,
        perplexity_ratio=1.0,
        events=tuple(r.event for r in replies),
        groups=tuple(r.group for r in replies),
        targets=tuple(r.emotion for r in replies),
        hit=hit,
        masked=masked,
        later=later,
        copied=copied,
        lexicon=lexicon,
        topic=topic,
        fluency=fluency,
    )


def test_rows_are_paired_by_event_and_target_not_by_order() -> None:
    arms = {"circuit": scores(0), "same": scores(0, shuffled=True), "other": scores(1)}
    found = {(c.control, c.measure): c for c in compare(arms, "circuit", seed=5)}
    assert set(found) == {(c, m) for c in ("same", "other") for m in MEASURES}
    for measure in MEASURES:
        same = found["same", measure]
        assert (same.difference, same.ci, same.p) == (0.0, (0.0, 0.0), 1.0)
    a, b = arms["circuit"], arms["other"]
    by_hand = {
        "accuracy": (a.hit, b.hit),
        "masked_accuracy": (a.masked, b.masked),
        "harmonic": tuple(
            [harmonic(row) for row in zip(x.hit, x.topic, x.fluency, strict=True)] for x in (a, b)
        ),
    }
    for measure, (first, second) in by_hand.items():
        one = found["other", measure]
        expected = paired_difference(first, second, a.groups, random=5)
        assert one.difference == pytest.approx(np.mean(first) - np.mean(second))
        assert (*one.ci, one.p) == pytest.approx((expected.low, expected.high, expected.p))
        assert (one.arm, one.scenarios) == ("circuit", 12)
        assert asdict(one)["ci"] == one.ci


def test_draws_of_a_control_are_a_sample_themselves() -> None:
    arms = {"circuit": scores(0), **{f"draw {n}": scores(n, shuffled=True) for n in range(1, 5)}}
    draws = [name for name in arms if name != "circuit"]
    own = arms["circuit"]
    for found in compare_draws(arms, "circuit", draws, "draws", seed=5):
        each = [c for d in draws for c in compare(arms, "circuit", controls=[d])]
        alone = [c.difference for c in each if c.measure == found.measure]
        assert found.difference == pytest.approx(np.mean(alone))
        assert (found.arm, found.control, found.scenarios) == ("circuit", "draws", 12)
        far = np.mean(alone) / (np.std(alone, ddof=1) * math.sqrt(1 + 1 / 4))
        assert found.p >= 2 * stats.t.sf(abs(far), 3) - 1e-12
    by_key = []
    for name in draws:
        one = arms[name]
        keyed = dict(zip(zip(one.events, one.targets, strict=True), one.hit, strict=True))
        by_key.append([keyed[key] for key in zip(own.events, own.targets, strict=True)])
    told = against_draws(own.hit, np.array(by_key), own.groups, random=5)
    first = compare_draws(arms, "circuit", draws, "draws", seed=5)[0]
    assert (first.measure, first.p, first.ci) == ("accuracy", told.p, (told.low, told.high))
    with pytest.raises(UnknownNameError):
        compare_draws(arms, "circuit", ["nobody"], "draws")


def test_arms_on_other_events_are_not_paired() -> None:
    arms = {"circuit": scores(0), "shorter": scores(1, events=20)}
    with pytest.raises(DataError, match="same events"):
        compare(arms, "circuit")
    with pytest.raises(UnknownNameError):
        compare(arms, "circuit", controls=["nobody"])
    twice = {"circuit": scores(0), "x": scores(0)}
    object.__setattr__(twice["x"], "events", ("e0",) * 48)
    with pytest.raises(DataError, match="twice"):
        compare(twice, "circuit")


def test_rows_without_a_verdict_are_left_out_of_both_arms() -> None:
    arms = {"circuit": scores(0), "other": scores(1)}
    unknown = {3, 10, 11}
    for row in unknown:
        arms["circuit" if row == 3 else "other"].hit[row] = np.nan
    known = [row for row in range(48) if row not in unknown]
    a, b = arms["circuit"], arms["other"]
    [found] = [c for c in compare(arms, "circuit", seed=5) if c.measure == "accuracy"]
    expected = paired_difference(a.hit[known], b.hit[known], [a.groups[r] for r in known], random=5)
    assert (found.difference, found.ci) == (expected.mean, (expected.low, expected.high))
    b.hit[:] = np.nan
    with pytest.raises(DataError, match="No event has a verdict for circuit and for other"):
        compare(arms, "circuit")
