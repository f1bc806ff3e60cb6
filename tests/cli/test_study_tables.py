"""What `affectlens probe study` prints: names whole at 80 columns, nothing left out unsaid."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from affectlens.cli import study_tables
from affectlens.sweeps.studies import StudyResult


def line(panel: str, x: object, **more: Any) -> dict[str, Any]:
    base = {
        "study": "malleability", "panel": panel, "series": "reply, read without the prompt",
        "x": x, "measure": "change of probability", "value": 0.25, "low": 0.1, "high": 0.4,
        "beside": 0.125, "control": "no change, Holm over labels", "p": 0.0123,
        "rows": 40, "groups": 8,
    }  # fmt: skip
    return {**base, **more}


def printed(rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    monkeypatch.setattr(study_tables, "stdout", lambda: Console(file=out, width=80))
    study_tables.print_study(
        StudyResult("malleability", "m", "c", rows, {}), Path("o"), as_json=False
    )
    return out.getvalue()


def test_names_are_whole_and_lines_of_a_kind_stand_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = ("happiness", "surprise")
    rows = [line("emotional", label) for label in labels]
    rows.insert(1, line("calm", "happiness", low=math.nan, high=math.nan, p=math.nan))
    text = printed(rows, monkeypatch)
    assert text.count("emotional · reply, read without the prompt: change of probability") == 1
    assert "beside it: no change, Holm over labels" in " ".join(text.split())
    shown = [one.split() for one in text.splitlines()]
    for label in labels:
        assert [label, "0.250", "0.100", "to", "0.400", "0.125", "0.0123"] in shown
    assert ["happiness", "0.250", "0.125"] in shown
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed([line("calm", offset) for offset in range(150)], monkeypatch)
    assert "30 more lines stand in the report" in text
