"""The printed tables hold what metrics.json holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from affectlens.evaluation import ARMS
from affectlens.pipeline.summary import arm_table, markdown, pair_table

MEASURES = ("accuracy", "masked_accuracy", "later_accuracy", "copied_openers")


def metrics() -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for i, name in enumerate(ARMS):
        arms[name] = {
            "lexicon_accuracy": 0.3, "perplexity_ratio": 1.5 + i, "topic": 0.4,
            "harmonic": 0.5, "masked_harmonic": 0.25,
        }  # fmt: skip
        for k, measure in enumerate(MEASURES):
            arms[name][measure] = (i + k) / 20
            arms[name][f"{measure}_ci"] = [(i + k) / 20 - 0.01, (i + k) / 20 + 0.02]
    pairs = [
        {"arm": "circuit", "control": c, "measure": m, "difference": d, "ci": [d - 0.1, d + 0.1],
         "p": p, "scenarios": 40}
        for c, d, p in (("residual", 0.05, 0.3), ("random", -0.25, 0.0002))
        for m in ("accuracy", "masked_accuracy", "harmonic")
    ]  # fmt: skip
    return {
        "model": "m", "arms": arms, "comparisons": pairs,
        "judge": {"accuracy": 0.9, "chance": {"replies": 0.17, "tones": 0.14}},
        "probe": {"accuracy": 0.8, "best_layer": "x"},
    }  # fmt: skip


def test_arms() -> None:
    head, *rows = arm_table(metrics())
    assert [row[0] for row in rows] == [kind.title for kind in ARMS.values()]
    assert {len(row) for row in rows} == {len(head)}
    circuit = dict(zip(head, rows[3], strict=True))
    assert circuit["emotion found"] == "0.15 (0.14–0.17)"
    assert circuit["feeling words masked"] == "0.20 (0.19–0.22)"
    assert circuit["without first sentence"] == "0.25 (0.24–0.27)"
    assert circuit["copied openers"] == "0.30 (0.29–0.32)"
    assert (circuit["perplexity ratio"], circuit["harmonic, masked"]) == ("4.50", "0.25")


def test_pairs() -> None:
    _, first, second = pair_table(metrics())
    assert first[:2] == ("circuit − residual", "+0.05 (-0.05 to +0.15), p .300")
    assert second[3] == "-0.25 (-0.35 to -0.15), p < .001"


def test_a_single_scenario_has_no_interval() -> None:
    found = metrics()
    for pair in found["comparisons"]:
        pair |= {"ci": [None, None], "p": None}
    found["arms"]["circuit"]["accuracy_ci"] = [None, None]
    assert pair_table(found)[1][1] == "+0.05"
    assert arm_table(found)[4][1] == "0.15"


def test_markdown() -> None:
    lines = markdown(arm_table(metrics())).splitlines()
    assert len(lines) == 2 + len(ARMS)
    assert len({line.count("|") for line in lines}) == 1
    assert lines[1].startswith("| --- | ---")


@pytest.mark.parametrize("width", ["80", "200"])
def test_the_console_prints_all_and_cuts_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    width: str,
) -> None:
    from affectlens.cli.tables import print_summary

    monkeypatch.setenv("COLUMNS", width)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics()))
    print_summary(tmp_path)
    printed = capsys.readouterr().out
    assert "…" not in printed
    for word in ("masked", "first", "copied", "perplexity", "0.20", "(0.19–0.22)", "report.html"):
        assert word in printed
    assert "circuit − residual" in printed or width == "80"
