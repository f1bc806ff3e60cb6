"""JSON lines: whatever a text holds, a line stays one line and comes back as it was."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import affectlens
from affectlens.core import ArtefactError
from affectlens.core.jsonl import json_line, parse_jsonl, read_jsonl, write_jsonl

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
texts = st.text(st.one_of(st.characters(), st.sampled_from(BREAKS + "\ud800\udfff\x00\x7f")))


@given(st.lists(st.fixed_dictionaries({"text": texts, "n": st.integers()})))
def test_round_trip(tmp_path_factory: Any, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows
    # Readers that split by any line break see the same rows.
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == rows


def test_every_break_stays_inside_its_line() -> None:
    line = json_line({"text": BREAKS, "é": "読"})
    assert len(line.splitlines()) == 1 and "é" in line and "読" in line
    assert json.loads(line) == {"text": BREAKS, "é": "読"}


def test_lines_of_others_may_hold_what_json_allows_unescaped() -> None:
    assert parse_jsonl('{"a": "x\u2028y\x85z"}\r\n\n {"a": 1}') == [
        {"a": "x\u2028y\x85z"},
        {"a": 1},
    ]


@pytest.mark.parametrize("content", [b'{"a": 1}\n{"a":\n', b'{"a": "\xe9"}\n', b"[" * 100_000])
def test_damage_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=r"rows\.jsonl cannot be read"):
        read_jsonl(path)
    with pytest.raises(ArtefactError, match="There is no file"):
        read_jsonl(tmp_path / "none.jsonl")


def test_json_lines_are_read_and_written_in_one_place() -> None:
    """Nothing else splits a JSON text at line breaks or writes one line of JSON by itself."""
    root = Path(affectlens.__file__).parent
    splitting = [
        f"{file.relative_to(root)}:{node.lineno}"
        for file in root.rglob("*.py")
        if "json" in (source := file.read_text("utf-8"))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and node.attr in ("splitlines", "readlines")
    ]
    # These split what a program or a tokenizer said, in error messages.
    allowed = ("models/fetch.py", "models/selfcheck.py", "datasets/hub.py")
    assert [where for where in splitting if not where.startswith(allowed)] == []
