from __future__ import annotations

import io
import logging
import re
import sys
import time

import pytest

from affectlens.core import progress as module
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


def test_a_unit_shows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("Working", 4000, unit="tokens") as advance:
        for _ in range(4):
            time.sleep(0.05)
            advance(1000)
    rates = re.findall(r"([\d,]+) tokens/s", terminal.getvalue())
    assert rates and 4000 < int(rates[-1].replace(",", "")) < 40_000


def test_the_log_tells_rate_and_time_left_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO), progress("Working", 10_000, unit="tokens") as advance:
        for seconds, tokens in ((20, 1500), (15, 2000), (10, 100), (30, 3900), (5, 2500)):
            clock[0] += seconds
            advance(tokens)
    assert [record.message for record in caplog.records] == [
        "Working: 3,500 of 10,000 tokens, 100 tokens/s, 0:01:05 left",
        "Working: 7,500 of 10,000 tokens, 100 tokens/s, 0:00:25 left",
    ]
