"""Chats given as messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from affectlens.core import DataError
from affectlens.datasets import Corpus, load


def chat(*turns: str) -> list[dict[str, Any]]:
    """``"user: Hello"`` and so on."""
    pairs = [turn.split(": ", 1) for turn in turns]
    return [{"role": role, "content": content} for role, content in pairs]


def corpus(tmp_path: Path, *rows: Any, **options: Any) -> Corpus:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load(path, **options)


def test_chats(tmp_path: Path) -> None:
    long = chat(
        "system: Be brief.", "user: Hello", "assistant: Hm?", "user: Late.", "assistant: Oh."
    )
    found = corpus(
        tmp_path,
        {"messages": chat("user: Late.", "assistant: Again!"), "emotion": "anger"},
        {"messages": long, "emotion": "sadness"},
        {"messages": chat("user: Late.", "assistant: Oh no!"), "emotion": "fear"},
    )
    assert found.design == "replies"
    assert [r.reply for r in found] == ["Again!", "Oh.", "Oh no!"]
    assert list(found.records[1].chat) == long
    # What is said before the reply is the content that emotions share.
    assert found.records[0].group == found.records[2].group == "Late." != found.records[1].group


def test_a_system_prompt_that_asks_for_the_emotion_is_no_content(tmp_path: Path) -> None:
    rows = [{"messages": chat(f"system: Be {e}.", "user: Late."), "emotion": e}
            for e in ("anger", "fear")]  # fmt: skip
    found = corpus(tmp_path, *rows)
    assert found.design == "elicited" and found.groups() == ("Late.",)


def test_parts_of_text_are_joined(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Hello."}, {"type": "text", "text": "Late."}]
    (record,) = corpus(tmp_path, {"messages": [{"role": "user", "content": parts}]})
    assert record.messages[0].content == "Hello.\nLate."


IMAGE = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}]
BAD: dict[str, Any] = {
    "messages must be a list": "hello",
    "messages are no JSON list": "[{",
    "messages must be a list of": [{}][:0] or {"role": "user"},
    "message 1 is not": ["hello"],
    "message 2 has the role 'tool'; use system, user or assistant": chat("user: a", "tool: b"),
    "message 1 has the role 'human'": chat("human: a"),
    "message 2 is a system message": chat("user: a", "system: b"),
    "message 2 (assistant) is empty": [*chat("user: a"), {"role": "assistant", "content": None}],
    "message 1 holds a part of type 'image_url'": [{"role": "user", "content": IMAGE}],
    "message 1 holds a damaged part": [{"role": "user", "content": [{"type": "text"}]}],
    "message 1 has a content that is neither": [{"role": "user", "content": 3}],
}


@pytest.mark.parametrize("words", BAD)
def test_bad_chats(tmp_path: Path, words: str) -> None:
    messages = BAD[words] if words != "messages must be a list" else {"a": "hello"}
    with pytest.raises(DataError) as raised:
        corpus(tmp_path, {"messages": chat("user: a")}, {"messages": messages})
    assert words in str(raised.value) and "line 2: " in str(raised.value)


def test_messages_beside_other_words(tmp_path: Path) -> None:
    row = {"messages": chat("user: a"), "prompt": "a"}
    with pytest.raises(DataError, match="has both messages and prompt"):
        corpus(tmp_path, row)
    assert len(corpus(tmp_path, row, columns={"prompt": None})) == 1
