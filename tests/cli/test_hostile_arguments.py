"""Arguments that cannot work end in one sentence before anything is read, fitted or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from affectlens.cli import app

SWEEP = ("probe", "sweep", "--model", "none", "--corpus", "replies")
PERSISTENCE = ("probe", "study", "persistence", "--model", "none", "--corpus", "replies")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SWEEP, "--seed", "-1"), "Invalid value for '--seed'"),
        ((*SWEEP, "--seed", str(2**70)), "Invalid value for '--seed'"),
        ((*SWEEP, "--penalties", "-1"), "Penalties are finite numbers above zero, not -1"),
        ((*SWEEP, "--penalties", "nan"), "Penalties are finite numbers above zero, not nan"),
        ((*PERSISTENCE, "--offsets=-1"), "Offsets are tokens of the reply, from 0 on, not -1"),
        (("run", "--size", "zz"), "Unknown size of a run 'zz'"),
        (("run", "--style", "zz"), "Unknown style"),
        (("probe", "--seed", "-1"), "Invalid value for '--seed'"),
    ],
)
def test_nothing_is_written(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, [*arguments, "--out", str(tmp_path / "out")], env={"COLUMNS": "200"}
    )
    assert done.exit_code != 0 and words in done.output, done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("packs", "info", ""), "There is no steering pack"),
        (("events", "hi", "--url", "http://[::1"), "Give the server's address such as"),
        (("steer", "hi", "-e", " ;"), "An empty --emotion steers nothing"),
        (("steer", "hi\udcff", "-e", "anger=1"), "bytes that are no UTF-8"),
        (("steer", "hi", "--system", "\udc80", "-e", "anger=1"), "bytes that are no UTF-8"),
    ],
)
def test_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    done = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 1 and words in done.output
    assert "Traceback" not in done.output and "--debug shows where" not in done.output
