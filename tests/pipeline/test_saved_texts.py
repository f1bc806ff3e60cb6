"""Texts that a run keeps come back as they were written, whatever characters they hold."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from affectlens.datasets import Corpus, Message, Record
from affectlens.evaluation import Reply
from affectlens.pipeline.arm_files import load_replies, save_replies
from affectlens.pipeline.corpus_files import load_corpus, save_corpus
from affectlens.serving.vllm.streamed_readings import Passing

BREAKS = {f"U+{ord(c):04X}": c for c in "\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\ufeff"}


@pytest.mark.parametrize("name", BREAKS)
def test_corpus(tmp_path: Path, name: str) -> None:
    words = f"so{BREAKS[name]}angry"
    messages = (Message("user", words), Message("assistant", words))
    record = Record("a", messages, "anger", None, "g", "t", "fit", {"role": "direction"})
    corpus = Corpus("x", "replies", (record,))
    save_corpus(corpus, tmp_path / "replies.jsonl")
    assert load_corpus(tmp_path / "replies.jsonl") == corpus


@pytest.mark.parametrize("name", BREAKS)
def test_replies(tmp_path: Path, name: str) -> None:
    words = f"so{BREAKS[name]}angry"
    reply = Reply("residual", "e", "g", "negative", "anger", words, words, 3, 1.5)
    save_replies([reply, reply], tmp_path / "replies.jsonl")
    assert [asdict(r) for r in load_replies(tmp_path / "replies.jsonl")] == [asdict(reply)] * 2


@pytest.mark.parametrize("name", BREAKS)
def test_streamed_event_with_readings_is_one_line(name: str) -> None:
    """Clients split a stream of events by `str.splitlines`, at characters that end no event."""
    passing = Passing()
    passing.waiting = {"8": [0.5]}
    choice = {"text": f"so{BREAKS[name]}angry", "finish_reason": None}
    event = passing.into(f"data: {json.dumps({'choices': [choice]})}\n\n")
    line, *rest = event.splitlines()
    assert rest == [""] and json.loads(line.removeprefix("data: "))["choices"] == [choice]
