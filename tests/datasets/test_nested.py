"""Nested rows: dotted paths, a record per key, and JSON that is no JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import DataError, UnknownNameError
from affectlens.datasets import load

ROWS = [
    {"id": "s1", "event": {"good": "I won.", "bad": "I lost."}, "mood": {"name": "joy"}},
    {"id": "s2", "event": {"good": "Nice.", "bad": None}, "mood": {"name": "fear"}, "tags": ["x"]},
]


@pytest.fixture(params=["jsonl", "json"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"own.{request.param}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    path.write_text(lines if request.param == "jsonl" else json.dumps(ROWS, indent=1))
    return path


def read(path: Path, **columns: str) -> Any:
    return load(path, columns=columns, emotions=None)


def test_a_dotted_path_leads_to_the_value(file: Path) -> None:
    found = read(file, text="event.good", emotion="mood.name", group="id")
    assert [(r.text, r.emotion, r.group) for r in found] == [
        ("I won.", "joy", "s1"),
        ("Nice.", "fear", "s2"),
    ]
    assert found.provenance["not_read"] == ["tags"]


def test_a_path_into_a_list(file: Path) -> None:
    file.write_text(json.dumps([{"turns": [{"say": "a"}, {"say": "b"}], "label": "joy"}]))
    path = file.rename(file.with_suffix(".json"))
    assert [r.text for r in read(path, text="turns.1.say")] == ["b"]
    with pytest.raises(DataError, match="ends at 'turns'; in it there is: 0, 1"):
        read(path, text="turns.7.say")


def test_a_record_of_every_key(file: Path) -> None:
    with pytest.raises(DataError, match="the text is empty"):
        read(file, text="event.*")  # the bad event of the second is null
    rows = [ROWS[0], {**ROWS[1], "event": {"good": "Nice.", "calm": "So."}}]
    path = file.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, text="event.*")
    assert [(r.id, r.text, r.emotion, r.group) for r in found] == [
        ("s1:good", "I won.", "good", "row_1"),
        ("s1:bad", "I lost.", "bad", "row_1"),
        ("s2:good", "Nice.", "good", "row_2"),
        ("s2:calm", "So.", "calm", "row_2"),
    ]
    named = read(path, text="event.*", emotion="mood.name", group="id")
    assert [(r.emotion, r.group) for r in named] == [("joy", "s1")] * 2 + [("fear", "s2")] * 2


def test_replies_below_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    row = {"ask": "Tea?", "said": {"polite": "Please.", "rude": "No."}}
    path.write_text(json.dumps(row) + "\n")
    found = read(path, prompt="ask", reply="said.*")
    assert [(r.messages[0].content, r.reply, r.emotion) for r in found] == [
        ("Tea?", "Please.", "polite"),
        ("Tea?", "No.", "rude"),
    ]
    assert len(found.groups()) == 1 and found.design == "replies"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("event.god", "ends at 'event'; in it there is: good, bad"),
        ("evnt.good", "no column 'evnt.good'"),
        ("id.x", "ends at 'id'; in it there is: nothing"),
    ],
)
def test_a_path_that_leads_nowhere(file: Path, column: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(file, text=column)


def test_a_column_with_a_dot_in_its_name_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"a.b": "plain", "a": {"b": "nested"}, "label": "joy"}) + "\n")
    assert read(path, text="a.b").records[0].text == "plain"


def test_lists_of_texts_by_label(tmp_path: Path) -> None:
    path = tmp_path / "by_label.json"
    path.write_text('{\n "joy": ["Yes!",\n  "Hooray."],\n "envy": [\n  "Mine."] }\n')
    found = read(path)
    assert [(r.text, r.emotion) for r in found] == [
        ("Yes!", "joy"),
        ("Hooray.", "joy"),
        ("Mine.", "envy"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "line 1: not a JSON object"),
        ('[{"text": "a"},\n\n 3]', "line 3: not a JSON object"),
        ('{"joy": 3}', "'joy' is no list of texts"),
        ('{"joy": ["a",\n 3]}', "line 2: not a text"),
        ('{"joy": ["a"], "joy": ["b"]}', "two values for 'joy'"),
        ('[{"a": 1, "a": 2}]', "two values for 'a'"),
        ('[{"a": 1},\n', "line 2: not JSON"),
        ('"words"', "must hold a list of objects"),
        ("[]", "a header but no rows"),
        ("[" * 100_000, "nested too deep|not JSON"),
    ],
)
def test_json_that_holds_no_rows(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read(path)


def test_a_line_is_that_of_the_entry(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text('[\n{"text": "a", "emotion": "joy"},\n\n{"text": "b", "emotion": "rage"}]')
    with pytest.raises(UnknownNameError, match="line 4: Unknown emotion 'rage'"):
        load(path)
    kept = load(path, others="drop")
    assert [r.text for r in kept] == ["a"] and kept.provenance["other_labels"] == {"rage": 1}
    with pytest.raises(UnknownNameError, match="way to take other labels"):
        load(path, others="keep")
