"""Each planted problem is found, and only that one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectlens.core import TONES
from affectlens.datasets import (
    Corpus,
    LeakageLimits,
    Message,
    Record,
    affect_words,
    check_leakage,
    load,
)
from affectlens.datasets.leakage.duplicates import near_duplicates

Change = Callable[[Record], Record | None]


def planted(name: str, change: Change) -> Corpus:
    corpus = load(name)
    records = tuple(r for record in corpus if (r := change(record)) is not None)
    return Corpus("planted", corpus.design, records)


def reply_of(emotion: str, edit: Callable[[str], str]) -> Change:
    def change(record: Record) -> Record:
        if record.emotion != emotion:
            return record
        *before, last = record.messages
        return replace(record, messages=(*before, Message(last.role, edit(last.content))))

    return change


def in_group(group: str, edit: Callable[[str], str], role: str = "user") -> Change:
    def change(record: Record) -> Record:
        if record.group != group:
            return record
        messages = tuple(
            Message(m.role, edit(m.content) if m.role == role else m.content)
            for m in record.messages
        )
        return replace(record, messages=messages)

    return change


SHARED = "Yesterday a courier rang twice, left two grey boxes and drove off to the harbour."

PLANTED: dict[str, tuple[str, Change, str, str]] = {
    "a feeling in an event": (
        "replies",
        in_group("work_00:positive", lambda t: f"{t} I was delighted."),
        "affect_words",
        "1 event by the user names a feeling (delighted): work_00:positive",
    ),
    "a feeling in an elicited event": (
        "scenarios",
        in_group("civic_03:neutral", lambda t: f"{t} I felt sad."),
        "affect_words",
        "civic_03:neutral",
    ),
    "feelings in neutral replies": (
        "replies",
        reply_of("neutral", lambda t: f"{t} I am glad."),
        "affect_words",
        "120 of 120 neutral texts name a feeling",
    ),
    "angry capitals": (
        "replies",
        reply_of("anger", lambda t: t.replace("the", "THE")),
        "capitals",
        "0.00 for",
    ),
    "happy exclamation marks": (
        "replies",
        reply_of("happiness", lambda t: t.removesuffix(".") + "!"),
        "exclamation_marks",
        "for happiness",
    ),
    "surprised question marks": (
        "tones",
        reply_of("surprise", lambda t: t + "?"),
        "question_marks",
        "1.00 for surprise",
    ),
    "short sadness": (
        "replies",
        reply_of("sadness", lambda t: " ".join(t.split()[:15]) + "?" * ("?" in t)),
        "length",
        "15.00 for sadness",
    ),
    "fear in dots": (
        "replies",
        reply_of("fear", lambda t: t.replace(" and ", " … and ").replace(",", "...")),
        "punctuation",
        "for fear",
    ),
    "replies alike": (
        "replies",
        lambda r: (
            in_group(r.group, lambda _: SHARED, "assistant")(r)
            if (r.group, r.emotion) in {("work_00:positive", "anger"), ("home_00:positive", "fear")}
            else r
        ),
        "near_duplicates",
        "home_00:positive:fear and work_00:positive:anger",
    ),
    "events alike": (
        "events",
        lambda r: (
            in_group(r.group, lambda _: SHARED)(r)
            if r.group in {"work_00:positive", "home_00:negative"}
            else r
        ),
        "near_duplicates",
        "home_00:negative and work_00:positive",
    ),
    "a group without fear": (
        "replies",
        lambda r: None if r.id == "work_00:positive:fear" else r,
        "incomplete_group",
        "work_00:positive (no fear)",
    ),
    "white space in one prompt": (
        "scenarios",
        lambda r: in_group(r.group, lambda t: f"{t} ")(r) if r.id == "work_00:neutral:anger" else r,
        "unequal_prompts",
        "work_00:neutral",
    ),
    "white space in one system prompt": (
        "scenarios",
        lambda r: (
            in_group(r.group, lambda t: f"\n{t}", "system")(r)
            if r.id == "work_00:neutral:anger"
            else r
        ),
        "unequal_prompts",
        "System prompts for anger",
    ),
    "a scenario in two splits": (
        "scenarios",
        lambda r: (
            replace(r, split="test", meta={**r.meta, "role": "test"})
            if r.group == "work_00:neutral"
            else r
        ),
        "split_overlap",
        "work_00 (direction and test)",
    ),
}


@pytest.mark.parametrize("problem", PLANTED)
def test_planted_problem_is_found_alone(problem: str) -> None:
    name, change, kind, words = PLANTED[problem]
    report = check_leakage(planted(name, change))
    assert not report.ok
    assert {finding.kind for finding in report.findings} == {kind}, report.messages
    assert words in report.messages[0] == str(report.findings[0])
    assert len(report.findings) == 1 == len(report.of_kind(kind))


def test_names_of_records_are_listed_but_only_some_are_printed() -> None:
    report = check_leakage(planted("replies", reply_of("neutral", lambda t: f"{t} I am glad.")))
    assert len(report.findings[0].records) == 120 and "and 117 more" in report.messages[0]


def test_limits_can_be_chosen() -> None:
    loud = planted("replies", reply_of("anger", lambda t: t.upper()))
    assert not check_leakage(loud).ok
    assert check_leakage(loud, LeakageLimits(share=1.0)).ok


def test_chance_is_not_blamed() -> None:
    """Two texts per emotion, one with an exclamation mark: too few to say anything."""
    few = [r for r in load("replies") if r.group in {"work_00:positive", "home_00:positive"}]
    change = reply_of("anger", lambda t: t + "!")
    assert check_leakage(Corpus("few", "replies", tuple(change(r) for r in few))).ok  # type: ignore[misc]


def test_statistics_are_means_per_emotion() -> None:
    corpus = load("tones")
    report = check_leakage(corpus)
    assert report.fingerprint == corpus.fingerprint
    for tone in TONES:
        texts = [r.text for r in corpus if r.emotion == tone]
        words = sum(len(text.split()) for text in texts) / len(texts)
        assert report.statistics["length"][tone] == pytest.approx(words)
        marks = sum("!" in text for text in texts) / len(texts)
        assert report.statistics["exclamation_marks"][tone] == pytest.approx(marks)


def test_texts_without_emotion_or_group_are_no_problem() -> None:
    rows = tuple(
        Record(f"r{i}", (Message("text", f"Sentence {i}."),), None, None, f"r{i}", "t", "fit")
        for i in range(3)
    )
    assert check_leakage(Corpus("c", "texts", rows)).ok


@pytest.mark.parametrize("word", ["furious", "Delighted", "GRIEF", "was scared of", "surprising"])
def test_words_that_name_a_feeling(word: str) -> None:
    assert affect_words(f"He {word} it.")


@pytest.mark.parametrize("word", ["made", "wangler", "sadhu", "gladiator", "Madrid", "crypt"])
def test_words_that_do_not(word: str) -> None:
    assert not affect_words(f"He {word} it.")


def test_words_of_one_emotion() -> None:
    text = "I was furious, then sad, then hopeful."
    assert affect_words(text) == ["furious", "sad", "hopeful"]
    assert affect_words(text, "anger") == ["furious"] and affect_words(text, "sadness") == ["sad"]
    assert affect_words(text, "neutral") == []


@given(
    st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=8).map(" ".join), max_size=25),
    st.sampled_from([0.2, 0.5, 0.6, 0.75, 1.0]),
)
def test_near_duplicates_equal_the_comparison_of_all_pairs(
    texts: list[str], similarity: float
) -> None:
    sets = [set(text.split()) for text in texts]
    expected = [
        (i, j)
        for i, j in combinations(range(len(sets)), 2)
        if sets[i]
        and sets[j]
        and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= similarity - 1e-12
    ]
    assert near_duplicates(texts, similarity) == expected
