"""One group name under two valences is two contents, wherever records or rows are grouped."""

from __future__ import annotations

import pytest
import torch

from affectlens.circuits.attribution.unit_means import cell_weights
from affectlens.core import DataError
from affectlens.datasets import Corpus, Message, Record, check_leakage
from affectlens.datasets.schema import incomplete_groups
from affectlens.geometry.grouping import group_rows
from affectlens.steering.refine.replies import complete_groups

EMOTIONS = ("anger", "fear")
EVENTS = {"negative": "The train to work was cancelled.", "positive": "I am furious at my award."}


def record(emotion: str, valence: str, n: int = 0, event: str | None = None) -> Record:
    messages = (
        Message("user", event or EVENTS[valence]),
        Message("assistant", f"{emotion} about the {valence} event, number {n}"),
    )
    name = f"{emotion}:{valence}:{n}"
    return Record(name, messages, emotion, valence, "work_01", "work", "fit")


def corpus(*records: Record) -> Corpus:
    return Corpus("twice", "replies", records)


BOTH = tuple(record(e, v) for v in EVENTS for e in EMOTIONS)


def test_every_grouping_sees_two_contents() -> None:
    found = corpus(*BOTH)
    assert found.groups() == ("work_01:negative", "work_01:positive")
    columns = [r.emotion for r in BOTH], [r.group for r in BOTH], [r.valence for r in BOTH]
    keys = (("work_01", "negative"), ("work_01", "positive"))
    assert group_rows(*columns, EMOTIONS).keys == keys
    weights, n = cell_weights(*columns, EMOTIONS)
    assert n == 2 and torch.equal(weights, torch.ones(4))
    assert complete_groups(found, EMOTIONS) == [BOTH[:2], BOTH[2:]]


def test_a_content_that_lacks_an_emotion_is_not_filled_up_by_the_other_valence() -> None:
    half = corpus(BOTH[0], BOTH[3])  # anger of the one, fear of the other
    assert incomplete_groups(half, EMOTIONS) == {
        "work_01:negative": ("fear",),
        "work_01:positive": ("anger",),
    }
    columns = [r.emotion for r in half], [r.group for r in half], [r.valence for r in half]
    assert len(group_rows(*columns, EMOTIONS).incomplete) == 2
    with pytest.raises(DataError, match="no group with a reply in every one"):
        complete_groups(half, EMOTIONS)
    with pytest.raises(DataError, match="No group has all"):
        cell_weights(*columns, EMOTIONS, grouped=True)


def test_the_leakage_check_reads_both_events_and_does_not_compare_them() -> None:
    findings = check_leakage(corpus(*BOTH)).findings
    assert [f for f in findings if f.kind == "unequal_prompts"] == []
    named = [f for f in findings if f.kind == "affect_words"]
    assert [f.records for f in named] == [("work_01:positive",)]  # the second event says "furious"


def test_several_replies_in_one_emotion_are_all_refined_on() -> None:
    extra = record("fear", "negative", 1)
    groups = complete_groups(corpus(*BOTH[:2], extra), EMOTIONS)
    assert groups == [(BOTH[0], BOTH[1]), (BOTH[0], extra)]


def test_a_group_of_several_prompts_is_refused_by_refinement() -> None:
    other = record("fear", "negative", 1, event="Something else happened.")
    with pytest.raises(DataError, match=r"work_01:negative .* different prompts"):
        complete_groups(corpus(BOTH[0], other), EMOTIONS)
