"""Bars of other libraries stay away, and come back for those who use these libraries themselves."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from affectlens.models.library_bars import no_library_bars
from tests.on_disk import save_model


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_weights_load_without_a_bar(
    stream: type[io.StringIO], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path)
    monkeypatch.setattr(sys, "stderr", said := stream())
    with no_library_bars():
        assert are_progress_bars_disabled() is (stream is io.StringIO)
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert said.getvalue() == ""
    assert not are_progress_bars_disabled()
    AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "Loading weights" in said.getvalue()


def test_a_hook_of_somebody_else_is_given_back() -> None:
    def theirs(factory: object, args: object, kwargs: object) -> None:
        raise AssertionError

    before = logging.set_tqdm_hook(theirs)
    try:
        with pytest.raises(KeyError), no_library_bars():
            raise KeyError
    finally:
        assert logging.set_tqdm_hook(before) is theirs


def test_reading_gguf_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import modeling_gguf_pytorch_utils as gguf

    bar = gguf.tqdm
    monkeypatch.setattr(sys, "stderr", said := Terminal())
    with no_library_bars():
        assert list(gguf.tqdm(range(3), desc="Tensors")) == [0, 1, 2]
    assert said.getvalue() == ""
    assert gguf.tqdm is bar
    assert list(gguf.tqdm(range(3), desc="Tensors")) == [0, 1, 2]
    assert "Tensors" in said.getvalue()
