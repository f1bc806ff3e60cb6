"""A user's own file: round trips, defaults, and complaints with file and line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from affectlens.core import TONES, VALENCES, DataError, UnknownNameError
from affectlens.datasets import SPLITS, Corpus, load


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_texts(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "own.jsonl",
        {"sentence": "Oh no.", "label": "Joy", "who": "x"},
        {"sentence": "Oh yes.", "label": " fear "},
    )
    corpus = load(str(path), columns={"text": "sentence", "emotion": "label"})
    assert corpus.name == "own" and corpus.design == "texts"
    assert [(r.id, r.text, r.emotion, r.group) for r in corpus] == [
        ("row_1", "Oh no.", "happiness", "row_1"),
        ("row_2", "Oh yes.", "fear", "row_2"),
    ]
    assert corpus.records[0].messages[0].role == "text"
    assert corpus.provenance["columns"] == {"text": "sentence", "emotion": "label"}


def test_same_prompt_is_one_group(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Event {i}.", "reply": f"Reply {e} {i}.", "emotion": e}
        for i in range(20)
        for e in TONES
    ]
    corpus = load(jsonl(tmp_path / "r.jsonl", *rows), fractions={"fit": 0.5, "test": 0.5})
    assert corpus.design == "replies" and len(corpus.groups()) == 20
    corpus.require_complete_groups(TONES)
    uses: dict[str, set[tuple[str, str]]] = {}
    for record in corpus:
        uses.setdefault(record.group, set()).add((record.split, record.role))
    assert all(len(use) == 1 for use in uses.values())
    assert sum(("test", "test") in use for use in uses.values()) == 10
    assert sum(("fit", "judge") in use for use in uses.values()) == 5


def test_valence_becomes_part_of_the_group(tmp_path: Path) -> None:
    """A group key without valence would overwrite one event with another."""
    rows = [
        {
            "prompt": f"Event {v}.",
            "emotion": "anger",
            "system": "Be it.",
            "group": "s1",
            "valence": v,
        }
        for v in VALENCES
    ]
    corpus = load(jsonl(tmp_path / "e.jsonl", *rows))
    assert corpus.design == "elicited"
    assert corpus.groups() == ("s1:positive", "s1:neutral", "s1:negative")
    assert corpus.scenarios() == ("s1",) and len({r.split for r in corpus}) == 1
    assert [m.role for m in corpus.records[0].messages] == ["system", "user"]


def test_elicited_with_neutral_rows_that_have_no_system_prompt(tmp_path: Path) -> None:
    path = table(tmp_path / "e.csv", "prompt,system,emotion\nP,Be angry.,anger\nP,,neutral\n")
    corpus = load(path)
    assert corpus.design == "elicited" and len(corpus.groups()) == 1


def test_own_splits_and_themes(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.tsv", "text\tsplit\ttheme\na\ttrain\twork\nb\tVAL\thome\nc\ttest\thome\n"
    )
    corpus = load(path)
    assert [(r.split, r.theme) for r in corpus] == [
        ("fit", "work"),
        ("tune", "home"),
        ("test", "home"),
    ]
    assert {r.split for r in load(path, columns={"split": None}, fractions={"test": 1})} == {"test"}


def test_seed_changes_the_split_only(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "s.jsonl", *({"text": f"Text {i}."} for i in range(40)))
    one, same, two = (load(path, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint == same.fingerprint != two.fingerprint
    assert [r.text for r in one] == [r.text for r in two]


def test_any_label_where_none_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", {"text": "a", "emotion": "awe"})
    assert load(path, emotions=None).labels() == ("awe",)
    assert load(path, emotions=["awe", "pride"]).labels() == ("awe",)
    with pytest.raises(UnknownNameError, match="line 1: Unknown emotion 'awe'"):
        load(path)


def test_numbers_are_names_but_no_texts(tmp_path: Path) -> None:
    assert load(jsonl(tmp_path / "n.jsonl", {"id": 7, "text": "a", "group": 3})).groups() == ("3",)
    with pytest.raises(DataError, match="line 1: text is 3, not a text"):
        load(jsonl(tmp_path / "n.jsonl", {"text": 3}))


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    path.write_bytes("\ufefftext,emotion\r\nA café.,anger\r\n\r\nB.,fear\r\n".encode())
    corpus = load(path)
    assert [r.text for r in corpus] == ["A café.", "B."]
    assert [r.id for r in corpus] == ["row_2", "row_4"]


JSONL_ERRORS = {
    "": "is empty",
    " \n\n": "is empty",
    '{"text": "a"}\n{"text": ""}\n': "line 2: the text is empty",
    '{"text": "a"}\n\n{"text": "  "}\n': "line 3: the text is empty",
    '{"prompt": "a", "reply": null}\n': "line 1: the reply is empty",
    '{"text": "a"}\n{"text": \n': "line 2: not JSON",
    "[1]\n": "line 1: not a JSON object",
    '{"label": "joy"}\n': "line 1: has neither a text nor a prompt",
    '{"reply": "a"}\n': "line 1: has neither a text nor a prompt",
    '{"text": "a", "prompt": "b"}\n': "line 1: has both text and prompt",
    '{"text": "a"}\n{"text": "b", "emotion": "angre"}\n': "line 2: Unknown emotion 'angre'; "
    "choose one of: anger",
    '{"text": "a", "text": "b"}\n': "line 1: two values for 'text'",
    '{"text": "NaN"}\n': "line 1: the text is 'NaN', which stands for a missing value",
    '{"text": "a", "split": "fit"}\n{"text": "b", "split": null}\n': "line 2: the split is missing",
    '{"text": "a", "valence": "good"}\n': "line 1: Unknown valence 'good'",
    '{"text": "a", "split": "tset"}\n': "line 1: Unknown split 'tset'; choose one of: test",
    '{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n': "line 2: id 'x' is that of line 1",
    '{"text": ["a"]}\n': "line 1: text is ['a'], not a text",
    '{"text": "a", "group": {}}\n': "line 1: group is a dict, not a name",
    '{"text": "\\ud800"}\n': "line 1: text holds half a character",
    '{"text": "a"}\n{"prompt": "a", "reply": "b"}\n': "mixes rows of the designs texts and replies",
}


@pytest.mark.parametrize("content", JSONL_ERRORS)
def test_bad_jsonl(tmp_path: Path, content: str) -> None:
    path = table(tmp_path / "bad.jsonl", content)
    with pytest.raises((DataError, UnknownNameError)) as raised:
        load(path)
    message = str(raised.value)
    assert JSONL_ERRORS[content] in message and "bad.jsonl" in message
    assert "\n" not in message


CSV_ERRORS = {
    "text,emotion\n": "has a header but no rows",
    'text,emotion\n"two\nlines",anger\nb,angr\n': "line 4: Unknown emotion 'angr'; choose one of: "
    "anger",
    "text,emotion\na,b,c\n": "line 2: 3 fields, but the header has 2",
    "text,text\na,b\n": "line 1: two columns 'text'",
    'text\n"never closed\n': "line 2: not a CSV table",
}


@pytest.mark.parametrize("content", CSV_ERRORS)
def test_bad_csv(tmp_path: Path, content: str) -> None:
    with pytest.raises((DataError, UnknownNameError)) as raised:
        load(table(tmp_path / "bad.csv", content))
    assert CSV_ERRORS[content] in str(raised.value)


def test_missing_column_lists_those_there_closest_first(tmp_path: Path) -> None:
    path = table(tmp_path / "c.csv", "zebra,sentense\nx,a\n")
    with pytest.raises(DataError, match="line 2: no column 'sentence'; there are: sentense, zebra"):
        load(path, columns={"text": "sentence"})
    path = jsonl(tmp_path / "c.jsonl", {"sentence": "a"}, {"sentenc": "b"})
    with pytest.raises(DataError, match=r"c\.jsonl, line 2: no column 'sentence'"):
        load(path, columns={"text": "sentence"})


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("text\nplain\ncafé\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv, line 3: byte 0xe9 is not UTF-8"):
        load(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no file"):
        load(tmp_path / "none.jsonl")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path / "folder.csv")


def test_unknown_field_option_and_corpus(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", {"text": "a"})
    with pytest.raises(UnknownNameError, match="choose one of: reply"):
        load(path, columns={"replay": "a"})
    with pytest.raises(UnknownNameError, match="choose one of: columns"):
        load(path, column={})
    with pytest.raises(UnknownNameError, match="choose one of: replies"):
        load("replys")


# What stands for a missing value is refused, not read: "None", "NULL", "N/A" and their like.
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(
    lambda text: (
        text.strip()
        and text.strip().lower() not in ("nan", "-nan", "<na>", "#n/a", "n/a", "none", "null")
    )
)
rows = st.lists(
    st.fixed_dictionaries(
        {"prompt": words, "reply": words, "emotion": st.sampled_from(TONES)},
        optional={
            "valence": st.sampled_from(VALENCES),
            "group": st.sampled_from(["a", "b", "c:d"]),
            "theme": st.sampled_from(["x", "y"]),
        },
    ).flatmap(lambda row: st.sampled_from(SPLITS).map(lambda split: {**row, "split": split})),
    min_size=1,
    max_size=8,
)


def check(corpus: Corpus, given_rows: list[dict[str, str]]) -> None:
    assert len(corpus) == len(given_rows)
    for record, row in zip(corpus, given_rows, strict=True):
        assert [m.content for m in record.messages] == [row["prompt"], row["reply"]]
        assert (record.emotion, record.split) == (row["emotion"], row["split"])
        assert record.valence == row.get("valence") and record.theme == row.get("theme", "all")
        expected = row.get("group", row["prompt"])
        assert record.scenario == expected
        if "valence" in row and "group" in row:
            assert record.group == f"{expected}:{row['valence']}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows)
def test_round_trip(tmp_path: Path, given_rows: list[dict[str, str]]) -> None:
    """What is written as JSONL or CSV comes back byte for byte."""
    check(load(jsonl(tmp_path / "trip.jsonl", *given_rows)), given_rows)
    buffer = io.StringIO(newline="")
    names = ["prompt", "reply", "emotion", "valence", "group", "theme", "split"]
    writer = csv.DictWriter(buffer, names, restval="", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(given_rows)
    check(load(table(tmp_path / "trip.csv", buffer.getvalue())), given_rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_kept_columns_go_into_meta_and_ratings_of_valence_are_no_field(
    suffix: str, tmp_path: Path
) -> None:
    rows = [
        {"text": f"text {i}", "emotion": "anger", "valence": i / 2, "size": i or None}
        for i in range(3)
    ]
    path = tmp_path / f"own{suffix}"
    if suffix == ".csv":
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]))
    else:
        text = [json.dumps(row) for row in rows]
        path.write_text("\n".join(text) if suffix == ".jsonl" else f"[{','.join(text)}]")
    corpus = load(path, keep=["valence", "size"])
    assert [float(r.meta["valence"]) for r in corpus] == [0, 0.5, 1]
    assert ["size" in r.meta for r in corpus] == [False, True, True]
    assert all(r.valence is None for r in corpus)
    first = 2 if suffix == ".csv" else 1
    assert [r.id for r in corpus] == [f"row_{first + i}" for i in range(3)]  # lines, or their order
    with pytest.raises(UnknownNameError, match=r"column in .*own.*'sise'.*size"):
        load(path, keep=["valence", "sise"])
