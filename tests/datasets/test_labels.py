"""Missing values, label sets of one's own, near-equal and several labels, names of columns."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import TONES, DataError, UnknownNameError, emotion_name
from affectlens.datasets import Corpus, check_leakage, load

PLUTCHIK = ("joy", "trust", "fear", "surprise", "sadness", "disgust", "anger", "anticipation")
NOTHING = ["", " ", "nan", "NaN", "None", "none", "NA", "n/a", "null", "<NA>"]


def corpus(tmp_path: Path, rows: Any, name: str = "own.csv", **options: Any) -> Corpus:
    """Labels, or whole rows, as a file."""
    path = tmp_path / name
    if isinstance(rows, str):
        path.write_text(rows, encoding="utf-8")
    else:
        full = [r if isinstance(r, dict) else {"text": f"t{i}", "emotion": r}
                for i, r in enumerate(rows)]  # fmt: skip
        path = path.with_suffix(".jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in full), encoding="utf-8")
    return load(path, **options)


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("emotions", [TONES, None, PLUTCHIK])
def test_missing_label(tmp_path: Path, nothing: str, emotions: Any) -> None:
    rows = f'text,emotion\na,anger\nb,"{nothing}"\nc,fear\n'
    found = corpus(tmp_path, rows, emotions=emotions)
    assert [r.emotion for r in found] == ["anger", None, "fear"]
    assert found.labels() == tuple(e for e in (emotions or TONES) if e in ("anger", "fear"))
    (told,) = check_leakage(found).of_kind("unlabelled")
    assert told.records == ("row_3",)


@pytest.mark.parametrize("nothing", [None, float("nan"), "NaN", []])
def test_missing_in_json(tmp_path: Path, nothing: Any) -> None:
    assert [r.emotion for r in corpus(tmp_path, ["fear", nothing], emotions=None)] == ["fear", None]
    for field in ("group", "scenario", "theme", "valence", "id", "split"):
        if nothing != []:
            rows = [{"text": str(i), field: nothing} for i in range(3)]
            found = corpus(tmp_path, rows)
            assert len(found.groups()) == len(found.scenarios()) == 3
            assert {r.theme for r in found} == {"all"} and {r.valence for r in found} == {None}
            assert [r.id for r in found] == ["row_1", "row_2", "row_3"]


def test_a_label_set_may_name_a_missing_value(tmp_path: Path) -> None:
    found = corpus(tmp_path, ["none", "joy", ""], emotions=["joy", "none"])
    assert [r.emotion for r in found] == ["none", "joy", None]


@pytest.mark.parametrize("column", ["Emotion", " EMOTION ", "label", "LABEL "])
def test_column_names_in_any_case(tmp_path: Path, column: str) -> None:
    assert corpus(tmp_path, f"Text,{column}\na,anger\nb,fear\n").labels() == ("anger", "fear")


def test_columns_that_are_not_read_are_told(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        found = corpus(tmp_path, "text,feeling\na,anger\nb,fear\n")
    assert "read text; not read: feeling" in caplog.text
    (told,) = check_leakage(found).of_kind("unlabelled")
    assert "feeling" in told.message
    with pytest.raises(DataError, match="'Emotion' and 'EMOTION' could both be 'emotion'"):
        corpus(tmp_path, "text,Emotion,EMOTION\na,anger,fear\n")
    found = corpus(tmp_path, "text,emotion,Emotion\na,anger,x\n")
    assert found.labels() == ("anger",) and found.provenance["not_read"] == ["Emotion"]


def test_labels_that_differ_in_case_or_spaces_are_merged_only_when_named(tmp_path: Path) -> None:
    labels = ["ANGER", "anger", "Anger ", "joy", "Joy", "self doubt", "Self_Doubt"]
    with pytest.raises(DataError, match=r"'ANGER', 'Anger', 'anger'.*emotions=\['anger'"):
        corpus(tmp_path, labels, emotions=None)
    found = corpus(tmp_path, labels, emotions=["anger", "joy", "self doubt"])
    assert [r.emotion for r in found] == ["anger"] * 3 + ["joy"] * 2 + ["self doubt"] * 2
    with pytest.raises(DataError, match="'Joy', 'joy'"):
        corpus(tmp_path, labels, emotions=["Joy", "joy"])


def test_slips_of_the_pen_are_pointed_out(tmp_path: Path) -> None:
    found = corpus(
        tmp_path, ["trust", "trsut", "anticipation", "antcipation", "joy"], emotions=None
    )
    told = check_leakage(found).of_kind("near_labels")
    assert {t.records for t in told} == {("trsut", "trust"), ("antcipation", "anticipation")}


def test_no_two_labels_of_goemotions_are_nearly_the_same(tmp_path: Path) -> None:
    from affectlens.datasets.loaders.goemotions import LABELS

    found = corpus(tmp_path, LABELS, emotions=LABELS)
    assert found.label_set == LABELS and not check_leakage(found).of_kind("near_labels")


@pytest.mark.parametrize("value", ["joy,anger", "joy|anger", "joy; anger", ["joy", "anger"],
                                   "['joy', 'anger']"])  # fmt: skip
@pytest.mark.parametrize("emotions", [None, PLUTCHIK, TONES])
def test_several_labels_are_refused_unless_asked_for(
    tmp_path: Path, value: Any, emotions: Any
) -> None:
    rows = ["fear", value]
    with pytest.raises(DataError, match=r"line 2: .* names 2 labels; .*several='first'"):
        corpus(tmp_path, rows, emotions=emotions)
    first = corpus(tmp_path, rows, emotions=emotions, several="first").records[1]
    joy = "happiness" if emotions is TONES else "joy"
    assert first.emotion == joy and first.meta["labels"] == [joy, "anger"]
    assert len(corpus(tmp_path, rows, emotions=emotions, several="drop")) == 1
    with pytest.raises(UnknownNameError, match="drop"):
        corpus(tmp_path, rows, several="both")


def test_one_label_in_a_list_is_one(tmp_path: Path) -> None:
    assert [r.emotion for r in corpus(tmp_path, [["fear"], "['joy']"], emotions=PLUTCHIK)] == [
        "fear",
        "joy",
    ]


def test_own_labels_come_before_aliases(tmp_path: Path) -> None:
    labels = ["Sadness", " Trust", "JOY", "joy", "angry"]
    found = corpus(tmp_path, labels, emotions=PLUTCHIK)
    assert [r.emotion for r in found] == ["sadness", "trust", "joy", "joy", "anger"]
    assert found.label_set == PLUTCHIK and found.labels() == ("joy", "trust", "sadness", "anger")
    assert emotion_name("joy", ("Joy", "happiness")) == "Joy"
    assert emotion_name("joy", ("happiness",)) == emotion_name("Joy") == "happiness"


def test_unknown_labels_name_the_way_to_own_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"emotions=None .*--labels any"):
        corpus(tmp_path, ["admiration"])
    with pytest.raises(UnknownNameError, match="choose one of"):
        corpus(tmp_path, ["admiration"], emotions=PLUTCHIK)


def test_the_label_set_is_part_of_the_corpus(tmp_path: Path) -> None:
    ours, own = corpus(tmp_path, ["fear", "anger"]), corpus(tmp_path, ["fear"], emotions=PLUTCHIK)
    assert ours.label_set == TONES and own.label_set == PLUTCHIK
    any_ = corpus(tmp_path, ["fear", "anger"], emotions=["fear", "anger"])
    assert any_.fingerprint != ours.fingerprint
    assert corpus(tmp_path, ["trust", "anger", "Neutral"], emotions=None).label_set == (
        "anger",
        "neutral",
        "trust",
    )
    kept = corpus(tmp_path, ["joy", "trust", "fear"], emotions=PLUTCHIK).filter(
        emotion=["Joy", "fear"]
    )
    assert kept.label_set == ("joy", "fear") and len(kept) == 2
    assert load("replies").filter(emotion="joy").labels() == ("happiness",)
    with pytest.raises(UnknownNameError, match="label in corpus x"):
        Corpus("x", "texts", own.records, {}, ("joy",))
