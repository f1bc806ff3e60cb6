"""The shipped replies that show a feeling: no word for one, no opener twice, roles of scenarios."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from affectlens.core import EMOTIONS, TONES
from affectlens.datasets import Corpus, affect_words, check_leakage, load
from affectlens.datasets.leakage.duplicates import near_duplicates
from affectlens.evaluation.naming import mask_feelings
from affectlens.pipeline.corpus_files import mixed
from affectlens.pipeline.rules import RefineMix
from affectlens.steering.refine.replies import complete_groups


@pytest.fixture(scope="module")
def implicit() -> Corpus:
    return load("implicit")


def test_groups_are_complete_and_answer_events_of_their_scenario(implicit: Corpus) -> None:
    assert Counter(record.emotion for record in implicit) == dict.fromkeys(TONES, 113)
    implicit.require_complete_groups(TONES)
    events = {record.group: record for record in load("events")}
    for record in implicit:
        event = events[record.group.removeprefix("implicit:")]
        assert record.messages[:1] == event.messages
        assert (record.scenario, record.role) == (event.scenario, event.role)
        assert record.id == f"{record.group}:{record.emotion}"
    groups = Counter(r.role for r in implicit if r.emotion == "anger")
    assert groups["direction"] >= 50 and groups["judge"] >= 25 and groups["test"] >= 12


def test_no_reply_holds_a_word_for_a_feeling(implicit: Corpus) -> None:
    assert mask_feelings("They danced and I was glad.") != "They danced and I was glad."
    assert {r.id: r.text for r in implicit if mask_feelings(r.text) != r.text} == {}
    assert not any(affect_words(record.text) for record in implicit)


def test_no_two_replies_open_alike(implicit: Corpus) -> None:
    heads = Counter(" ".join(re.findall(r"[a-z']+", r.text.lower())[:3]) for r in implicit)
    assert [head for head, n in heads.items() if n > 1] == []


def test_nothing_gives_an_emotion_away_but_what_is_said(implicit: Corpus) -> None:
    report = check_leakage(implicit)
    assert report.messages == ()
    lengths = report.statistics["length"]
    assert max(lengths.values()) - min(lengths.values()) < 5
    assert set(report.statistics["capitals"].values()) == {0.0}


def test_no_reply_is_like_another_text(implicit: Corpus) -> None:
    texts = [record.text for record in implicit]
    corpora = [load(name) for name in ("replies", "tones", "vignettes")]
    others = [record.text for corpus in corpora for record in corpus]
    assert near_duplicates([*texts, *others, f"Today {texts[3]}"], 0.55) == [
        (3, len(texts) + len(others))
    ]


def test_the_style_implicit_is_refined_on_them(implicit: Corpus) -> None:
    replies = load("replies").filter(role="direction", emotion=EMOTIONS)
    shown = implicit.filter(role="direction", emotion=EMOTIONS)
    [pool] = mixed(replies, replies, RefineMix(("replies", "implicit"), "implicit"), shown)
    assert set(shown) <= set(pool)
    assert len(complete_groups(pool, EMOTIONS)) >= 65
