from __future__ import annotations

import io
import sys

import pytest

from affectlens.core.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_drawn_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Working", 3) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_counts_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Working", 4) as advance:
        advance(3)
        advance(1)
    assert "Working" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert capsys.readouterr().out == ""
