"""What the tables of tuning say: every number that was measured, at the width of a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from affectlens.cli.tuning_tables import print_calibration, print_search
from affectlens.evaluation.intensity import DosePoint, check_emotion
from affectlens.evaluation.no_effect import Effect, Reason
from affectlens.pipeline.tuning_candidates import Candidate
from affectlens.pipeline.tuning_found import Found, Tried


def calibration() -> Any:
    points = [DosePoint("anger", d, 0.11 + d / 9, 0.125, 0.13, 1 + d, 8) for d in (0.0, 1.25)]
    checks = [check_emotion(e, {0.25: [0.2, 0.3], 0.5: [h, h]}, [0.07], 0.93)
              for e, h in (("anger", 0.61), ("fear", 0.42))]  # fmt: skip
    return SimpleNamespace(
        mode="circuit",
        points=points,
        checks=checks,
        silent={"disgust": "It does not rise."},
        table_rows=lambda: [point.to_dict() for point in points],
    )


def search(operators: tuple[str, ...] = ("add", "add")) -> Found:
    measures = ("accuracy", "masked_accuracy", "later_accuracy", "perplexity_ratio", "topic",
                "distinct2", "repetition", "harmonic", "masked_harmonic")  # fmt: skip
    tried = []
    for i, operator in enumerate(operators):
        metrics: Any = SimpleNamespace(
            **{n: 0.1 * (i + 1) + 0.01 * j for j, n in enumerate(measures)}
        )
        candidate = Candidate("circuit", "late", (4, 5 + i), 1.375, operator, "generated")
        tried.append(Tried(candidate, 7, metrics, i == 1, 99))
    effect = Effect(heard=0.4, named=0.1, perplexity_ratio=1.2, kl=0.77, size=0.05)
    return Found(tried, tried[0], "anger=1.375", None, effect, Reason("it works", "Yes."), 198)


def test_calibration(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_calibration(calibration(), Path("p.st"), as_json=False)
    said = capsys.readouterr().out
    for word in ("1.25", "0.25", "0.11", "0.93", "order", "slope", "p.st", "mode circuit",
                 "disgust is not calibrated: It does not rise."):  # fmt: skip
        assert word in said, word
    assert "emotions differ by at most 0.19" in said and "…" not in said
    print_calibration(calibration(), Path("p.st"), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["emotion"] for line in lines] == ["anger", "anger", "anger", "fear"]


def test_search(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_search(search(), Path("p.st"), as_json=False)
    said = capsys.readouterr().out
    for word in ("4-5", "4-6", "1.38", "breaks", "front", "0.77 nats", "5.0% of the residual",
                 "198 tokens", "it works: Yes.", "Text breaks at layers 4-6"):  # fmt: skip
        assert word in " ".join(said.split()), word
    assert "operator" not in said and "…" not in said
    print_search(search(("add", "add_keep_norm")), None, as_json=False)
    assert "operator" in capsys.readouterr().out
    print_search(search(), None, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["spec"] == "anger=1.375" and lines[-1]["kl"] == 0.77 and len(lines) == 3
