"""The command line as a user meets it: every stage is a command, and every mistake one sentence."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from affectlens.cli import main


@dataclass(frozen=True)
class Done:
    """What a command leaves."""

    code: int
    stdout: str
    stderr: str


Program = Callable[..., Done]


@pytest.fixture
def affectlens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Program:
    """The console script in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["affectlens", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capfd.readouterr())

    return call


def test_every_stage_is_a_command(affectlens: Program) -> None:
    from affectlens.pipeline.line import STAGES

    text = affectlens("--help").stdout
    for stage in STAGES.values():
        assert f" {stage.name} " in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--model", "smolm2", "--out", "o"), "smollm2-135m-instruct"),
        (("steer", "-e", "anger=1", "hello", "--run", "nowhere"), "affectlens run"),
        (("datasets", "show", "replis"), "replies"),
        (("datasets", "check", "gone.csv"), "gone.csv"),
        (("run", "--out", "a_file"), "is a file"),
        (("evaluate", "--url", "http://127.0.0.1:8000", "--out", "o"), "--backend vllm"),
        (("models", "pull", "gpt5"), "smollm2-135m-instruct"),
        (("models", "info", "short.gguf"), "short.gguf"),
    ],
)
def test_mistakes_end_in_one_sentence(
    affectlens: Program, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "a_file").write_text("")
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    done = affectlens(*arguments)
    assert done.code == 1 and not done.stdout
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1


@pytest.mark.parametrize("debug", [False, True])
def test_a_process_of_its_own_shows_the_traceback_if_asked(tmp_path: Path, debug: bool) -> None:
    command = [sys.executable, "-m", "affectlens", "datasets", "show", "replis"]
    done = subprocess.run(
        [*command, "--debug"] if debug else command,
        cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == debug
    assert debug or done.stderr.startswith("Error: Unknown corpus")


def test_datasets_commands(affectlens: Program) -> None:
    assert "840" in affectlens("datasets", "list").stdout
    assert len(affectlens("datasets", "show", "replies", "-n", "3").stdout.splitlines()) == 3
    checked = affectlens("datasets", "check", "replies")
    assert checked.code == 0 and "clean" in checked.stdout


def test_work_that_nobody_watches_is_told_and_nothing_else(affectlens: Program) -> None:
    affectlens("list", "sizes")
    told = [
        logging.getLogger(f"affectlens.{name}").isEnabledFor(logging.INFO)
        for name in ("core.progress", "core.artefact", "probes")
    ]
    assert told == [True, False, False]
