from __future__ import annotations

import io
import logging
import re
import sys
import time
from typing import Any

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


def test_in_a_notebook_a_bar_is_drawn_and_goes_when_the_work_is_done() -> None:
    import nbformat
    from nbclient import NotebookClient

    drawn: list[str] = []

    class Watched(NotebookClient):
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] in ("display_data", "update_display_data"):
                drawn.append(msg["content"]["data"]["text/html"])
            return super().process_message(msg, cell, cell_index)

    lines = (
        "from affectlens.core.progress import progress",
        "with progress('Working <fast>', 4, unit='texts') as advance:",
        "    advance(1)",
        "    advance(3)",
    )
    cells = [nbformat.v4.new_code_cell("\n".join(lines))]
    Watched(nbformat.v4.new_notebook(cells=cells), kernel_name="python3").execute()
    assert drawn[0] == drawn[-1] == ""
    assert "value='0'" in drawn[1] and "Working &lt;fast&gt;: 0/4" in drawn[1]
    assert re.search(r"max='4' value='4'.*4/4, [\d,]+ texts/s, 0:00:00 left", drawn[-2])
