"""``affectlens judges check``: what was measured when the judge was fitted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import EMOTIONS
from affectlens.evaluation.judges.encoder import shipped_adapter
from affectlens.evaluation.judges.training_data import SOURCES


def said(*given: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["judges", "check", *given], env={"COLUMNS": "80"})
    return done.exit_code, done.output


def test_the_table_is_that_of_the_shipped_judge() -> None:
    facts = shipped_adapter().facts["leave_one_out"]
    code, text = said()
    assert code == 0
    cells = [line.split() for line in text.splitlines()]
    assert [row["source"] for row in facts] in cells
    lines = {" ".join(words[: -len(facts)]): words[-len(facts) :] for words in cells}
    assert lines["texts"] == [str(row["n"]) for row in facts]
    assert lines["named rightly among six"] == [f"{row['six_way']:.2f}" for row in facts]
    assert lines["among eight"] == [f"{row['accuracy']:.2f}" for row in facts]
    for emotion in EMOTIONS:
        recalls = [row["recall"][emotion] for row in facts]
        assert lines[emotion] == ["–" if r is None else f"{r:.2f}" for r in recalls]
    for row in facts:
        assert f"{row['source']}: {SOURCES[row['source']]}" in text
    mean = sum(row["six_way"] for row in facts) / len(facts)
    told = [(row["recall"][e], e) for row in facts for e in EMOTIONS]
    lowest, emotion = min((r, e) for r, e in told if r is not None)
    assert (
        f"Mean of {len(facts)} sources, among six: {mean:.2f}. Lowest: {emotion} {lowest:.2f}"
        in text
    )


def test_the_same_as_json() -> None:
    code, text = said("--json")
    rows = [json.loads(line) for line in text.splitlines()]
    assert code == 0 and rows == list(shipped_adapter().facts["leave_one_out"])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--sources", "replies"], "needs both folders"),
        (["--goemotions", "x"], "needs both folders"),
        (["--sources", "replys"], "source of the judge 'replys'"),
        (["--goemotions", "x", "--repe", "none"], "There is no folder none"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(
    given: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "x" in given:
        (tmp_path / "x").mkdir()
        for name in ("train", "dev", "test"):
            (tmp_path / "x" / f"{name}.tsv").write_text(f"A day\t27\t{name}\n")
    code, text = said(*given)
    assert code == 1 and sentence in text.replace("\n", " ") and text.count("Error: ") == 1
