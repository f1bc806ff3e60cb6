"""Records and corpora: validation, filters, fingerprints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from affectlens.core import DataError, UnknownNameError
from affectlens.datasets import Corpus, Message, Record, load, scenario_of, show


def record(id_: str = "a", emotion: str | None = "anger", **changes: Any) -> Record:
    base = Record(
        id=id_,
        messages=(Message("text", f"Text {id_}."),),
        emotion=emotion,
        valence=None,
        group="g",
        theme="t",
        split="fit",
        meta={"role": "direction"},
    )
    return replace(base, **changes)


def corpus(*records: Record) -> Corpus:
    return Corpus("c", "texts", records or (record("a"), record("b", "fear")))


def test_empty_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="is empty"):
        Corpus("c", "texts", ())


def test_repeated_id_is_refused() -> None:
    with pytest.raises(DataError, match="two records with the id 'a'"):
        corpus(record("a"), record("a", "fear"))


def test_one_emotion_only_is_refused() -> None:
    with pytest.raises(DataError, match="has anger only"):
        corpus(record("a"), record("b")).require_emotions()
    with pytest.raises(DataError, match="no emotion only"):
        corpus(record("a", None)).require_emotions()
    corpus().require_emotions()


def test_missing_emotion_is_named() -> None:
    corpus().require_emotions(["fear", "anger"])
    with pytest.raises(DataError, match="no records for sadness; it has anger, fear"):
        corpus().require_emotions(["fear", "sadness"])


def test_incomplete_group_is_named() -> None:
    full = (record("a", group="g"), record("b", "fear", group="g"), record("c", group="h"))
    with pytest.raises(DataError, match=r"group h \(without fear\) is incomplete"):
        corpus(*full).require_complete_groups(["anger", "fear"])
    corpus(*full, record("d", "fear", group="h")).require_complete_groups(["anger", "fear"])


def test_a_group_that_has_an_emotion_twice_instead_is_incomplete() -> None:
    rows = (record("a"), record("b", "fear"), record("c", group="h"), record("d", group="h"))
    with pytest.raises(DataError, match="group h"):
        corpus(*rows).require_complete_groups(["anger", "fear"])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"split": "train"}, UnknownNameError, "fit"),
        ({"messages": ()}, DataError, "no text"),
        ({"id": ""}, DataError, "id"),
        ({"group": ""}, DataError, "group"),
        ({"messages": (Message("text", "x"), Message("user", "y"))}, DataError, "mixes"),
        ({"messages": (Message("user", "x"), Message("system", "y"))}, DataError, "first"),
    ],
)
def test_bad_records(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        record(**changes)


def test_bad_messages() -> None:
    with pytest.raises(UnknownNameError, match="assistant"):
        Message("assistent", "x")
    with pytest.raises(DataError, match="empty"):
        Message("user", " \n")


def test_unknown_design() -> None:
    with pytest.raises(UnknownNameError, match="replies"):
        Corpus("c", "reply", (record(),))


def test_scenario_is_the_group_without_its_valence() -> None:
    assert scenario_of("work_03:negative") == "work_03"
    assert scenario_of("a:b:neutral") == "a:b"
    assert scenario_of("work_03") == "work_03" and scenario_of("a:b") == "a:b"
    assert scenario_of(":positive") == ":positive"


def test_record_views() -> None:
    chat = record(messages=(Message("user", "u"), Message("assistant", "r")))
    assert chat.reply == chat.text == "r"
    assert chat.chat == ({"role": "user", "content": "u"}, {"role": "assistant", "content": "r"})
    assert record().reply is None
    assert record(meta={}).role == "direction" and record(meta={}, split="tune").role == "tune"


def test_filter() -> None:
    replies = load("replies")
    chosen = replies.filter(split="fit", emotion=["anger", "fear"], role="judge", theme="work")
    expected = [
        r
        for r in replies
        if (r.split, r.role, r.theme) == ("fit", "judge", "work") and r.emotion in ("anger", "fear")
    ]
    assert list(chosen) == expected and len(expected) == 8
    assert chosen.provenance["filters"] == [
        {"split": ["fit"], "emotion": ["anger", "fear"], "role": ["judge"], "theme": ["work"]}
    ]
    assert chosen.fingerprint != replies.fingerprint
    assert replies.filter() == replies and "filters" not in replies.provenance
    assert {r.valence for r in replies.filter(valence="negative")} == {"negative"}


def test_filter_complains() -> None:
    with pytest.raises(UnknownNameError, match="choose one of: anger"):
        load("replies").filter(emotion="angr")
    with pytest.raises(UnknownNameError, match="split"):
        load("replies").filter(split="train")
    with pytest.raises(DataError, match="no records with split=test, role=judge"):
        load("replies").filter(split="test", role="judge")


def test_fingerprint_sees_every_field_and_the_order() -> None:
    rows = (record("a"), record("b", "fear"))
    base = corpus(*rows).fingerprint
    assert corpus(*rows).fingerprint == base
    assert Corpus("other name", "texts", rows, {"source": "x"}).fingerprint == base
    assert corpus(*reversed(rows)).fingerprint != base
    assert Corpus("c", "replies", rows).fingerprint != base
    changes: list[dict[str, Any]] = [
        {"id": "z"},
        {"messages": (Message("text", "Other."),)},
        {"messages": (Message("user", rows[0].text),)},
        {"emotion": "sadness"},
        {"valence": "neutral"},
        {"group": "z"},
        {"theme": "z"},
        {"split": "tune"},
        {"meta": {"role": "judge"}},
    ]
    prints = {corpus(replace(rows[0], **change), rows[1]).fingerprint for change in changes}
    assert len(prints | {base}) == len(changes) + 1


def test_records_can_be_hashed() -> None:
    assert len({record("a"), record("a"), record("b")}) == 2


def test_show_takes_emotions_in_turn() -> None:
    rows = show(load("replies"), 7)
    assert [row["emotion"] for row in rows] == list(load("replies").labels())
    assert rows[0]["text"].startswith("user: ") and "\nassistant: " in rows[0]["text"]
    assert len(show(corpus(), 10)) == 2 and show(corpus(), 0) == []
    assert show(corpus(), 1)[0]["text"] == "Text a."
