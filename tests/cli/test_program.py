"""The command line as a user meets it: every stage is a command, and every mistake one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def affectlens(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from affectlens.cli import main; main()", *arguments]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=1200)


def test_every_stage_is_a_command(tmp_path: Path) -> None:
    from affectlens.pipeline.line import STAGES

    text = affectlens("--help", cwd=tmp_path).stdout
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
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "a_file").write_text("")
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    done = affectlens(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = affectlens("datasets", "show", "replis", "--debug", cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_datasets_commands(tmp_path: Path) -> None:
    assert "840" in affectlens("datasets", "list", cwd=tmp_path).stdout
    shown = affectlens("datasets", "show", "replies", "-n", "3", cwd=tmp_path).stdout
    assert len(shown.splitlines()) == 3
    checked = affectlens("datasets", "check", "replies", cwd=tmp_path)
    assert checked.returncode == 0 and "clean" in checked.stdout
