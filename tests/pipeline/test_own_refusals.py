"""What cannot be done with a user's texts is said in a sentence, before a model is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from tests.pipeline.own_texts import write_politeness, write_replies

COLUMNS = ("--column", "text=body", "--column", "emotion=politeness")


def _edited(tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Path:
    """The replies of three labels, each row changed or left out."""
    file = write_replies(tmp_path / "edited.jsonl", labels=("joy", "trust", "fear"))
    rows = [change(json.loads(line)) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))
    return file


def _few_of(label: str, groups: set[str]) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    return lambda row: row if row["emotion"] != label or row["group"] in groups else None


CASES: dict[str, tuple[Callable[[Path], list[str | Path]], str]] = {
    "one label": (
        lambda d: [_edited(d, lambda r: r if r["emotion"] == "Joy" else None)],
        "has the label Joy only",
    ),
    "one label beside neutral": (
        lambda d: [
            _edited(d, lambda r: None if r["emotion"] == "Fear" else r), "--neutral", "trust"
        ],
        "Joy only beside neutral",
    ),
    "no labels": (
        lambda d: [_edited(d, lambda r: {k: v for k, v in r.items() if k != "emotion"})],
        "no labelled text",
    ),
    "few groups": (lambda d: [write_replies(d / "few.jsonl", groups=5)], "has 5 groups, and 8"),
    "few texts to steer": (lambda d: [_edited(d, _few_of("Fear", {"g1"}))], "Fear (0)"),
    "few texts for a judge": (
        lambda d: [_edited(d, _few_of("Fear", {f"g{i}" for i in range(0, 24, 6)}))],
        "--judge",
    ),
    "no split": (
        lambda d: [_edited(d, lambda r: {**r, "split": "fit" if r["group"] < "g2" else "test"})],
        "no text of the split tune",
    ),
    "system prompts": (
        lambda d: [
            _edited(
                d,
                lambda r: {k: v for k, v in r.items() if k != "reply"} | {"system": "Be so."},
            )
        ],
        "by system prompt and holds no replies",
    ),
    "no such neutral": (
        lambda d: [write_replies(d / "a.jsonl"), "--neutral", "calm"], "Unknown emotion 'calm'"
    ),
    "a label no spec can name": (
        lambda d: [_edited(d, lambda r: {**r, "emotion": r["emotion"].replace("Joy", "mode")})],
        "'mode' in a steering spec",
    ),
    "prompts without words of a user": (
        lambda d: [
            write_politeness(d / "p.csv"), *COLUMNS, "--prompts", _prompts(d, "messages",
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], 4),
        ],
        "no prompt of the split",
    ),
    "openers of some labels": (
        lambda d: [write_replies(d / "a.jsonl"), "--openers", _openers(d)],
        "no opener for",
    ),
    "labels nobody has": (
        lambda d: [write_replies(d / "a.jsonl"), "--labels", "calm,bored"],
        "no rows with one of the labels",
    ),
    "no file": (lambda d: [d / "none.csv"], "There is no file"),
    "no corpus": (lambda _d: ["nonesuch"], "Unknown corpus 'nonesuch'"),
    "no column": (
        lambda d: [write_politeness(d / "p.csv"), "--column", "text=bdy"], "no column 'bdy'"
    ),
    "no judge": (
        lambda d: [write_replies(d / "a.jsonl"), "--judge", "gpt"], "neither an address"
    ),
    "a judge that lacks labels": (
        lambda d: [write_replies(d / "a.jsonl"), "--judge", _classifier(d)],
        "no output for Anger, Anticipation",
    ),
    "a system prompt without a label": (
        lambda d: [write_replies(d / "a.jsonl"), "--ask", "Be so."], "{label}"
    ),
    "no number": (lambda d: [write_replies(d / "a.jsonl"), "--per-label", "few"], "a number or"),
    "no texts at all": (lambda d: [write_replies(d / "a.jsonl"), "--per-label", "0"], "from 1 on"),
}  # fmt: skip


def _prompts(folder: Path, column: str, value: Any, count: int) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text(
        "".join(json.dumps({column: value, "group": "one"}) + "\n" for _ in range(count))
    )
    return file


def _classifier(folder: Path) -> Path:
    place = folder / "classifier"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"id2label": {"0": "joy", "1": "fear"}}))
    return place


def _openers(folder: Path) -> Path:
    file = folder / "openers.csv"
    file.write_text("text,emotion\nI am so glad.,joy\n")
    return file


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_before_the_work_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("no weights are needed to say that")

    monkeypatch.setattr("affectlens.models.load_model", refuse)
    make, said = CASES[name]
    arguments = ["run", "--out", tmp_path / "run", "--corpus", *make(tmp_path)]
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 1, done.output
    assert said in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_options_of_ones_own_texts_need_texts(tmp_path: Path) -> None:
    arguments = ["run", "--out", tmp_path / "run", "--neutral", "calm", "--judge", "http://x"]
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 1 and "--judge, --neutral: only with --corpus" in done.stderr


def test_notices_come_before_the_first_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.core import ModelError

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise ModelError("far enough.")

    monkeypatch.setattr("affectlens.models.load_model", refuse)
    file = write_politeness(tmp_path / "p.csv")
    arguments = ["express", "--model", "m", "--out", tmp_path / "r", "--corpus", file, *COLUMNS]
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "400"})
    said = [line for line in done.stderr.splitlines() if line.startswith("note")]
    assert len(said) == 5 and done.stderr.rstrip().endswith("far enough.")
