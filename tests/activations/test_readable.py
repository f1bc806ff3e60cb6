"""Texts that are nothing but attention sinks are left out, and it is said."""

from __future__ import annotations

import logging

import pytest

from affectlens.activations import capture
from affectlens.activations.readable import readable
from affectlens.core import DataError
from affectlens.datasets import Corpus, Message, Record


def corpus(*texts: str) -> Corpus:
    records = tuple(
        Record(f"r{i}", (Message("text", text),), "anger", None, f"g{i}", "x", "fit")
        for i, text in enumerate(texts)
    )
    return Corpus("mine", "texts", records)


def test_texts_of_one_token_are_left_out(tiny_model, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model("llama")
    texts = corpus("a", "the train was cancelled", "b", "a a")
    with pytest.raises(DataError, match="Record r0 has nothing but attention sinks"):
        capture(model, texts, sites="resid_post@1", positions="mean:text")
    with caplog.at_level(logging.WARNING):
        found = readable(model, texts)
    assert [record.id for record in found] == ["r1", "r3"]
    assert "mine: 2 texts are nothing but attention sinks" in caplog.text
    store = capture(model, found, sites="resid_post@1", positions="mean:text")
    assert store.column("id") == ["r1", "r3"]
    assert readable(model, found).records == found.records
