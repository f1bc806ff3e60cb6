"""One writer per folder: the second is told who the first is, and the dead bar nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from affectlens.core import ArtefactError
from affectlens.core.lock import NOTE, held

_HOLD = """
import sys, time
from pathlib import Path
from affectlens.core.lock import held
with held(Path(sys.argv[1]), Path("the folder")):
    print("held", flush=True)
    time.sleep(120)
"""


def holder(lock: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLD, str(lock)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_the_second_is_told_who_holds_it_and_a_dead_holder_bars_nobody(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    other = holder(lock)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ArtefactError) as told, held(lock, tmp_path):
            raise AssertionError("two writers")
    finally:
        other.kill()
        other.wait()
    said = str(told.value)
    assert str(tmp_path) in said and "\n" not in said
    assert f"process {other.pid} on {socket.gethostname()}, since 2" in said
    assert "-c" in said and "wait until it has finished" in said
    assert (tmp_path / f"x.lock{NOTE}").exists()  # the dead did not tidy up
    with held(lock, tmp_path):
        note = json.loads((tmp_path / f"x.lock{NOTE}").read_text())
        assert note["pid"] == os.getpid()
    assert not (tmp_path / f"x.lock{NOTE}").exists()
    with held(lock, tmp_path):  # and again
        pass


def test_one_process_is_no_exception(tmp_path: Path) -> None:
    with held(tmp_path / "x.lock", tmp_path):
        with (
            pytest.raises(ArtefactError, match=f"process {os.getpid()} "),
            held(tmp_path / "x.lock", tmp_path),
        ):
            pass
        # The refused one took nothing away from the holder.
        with pytest.raises(ArtefactError), held(tmp_path / "x.lock", tmp_path):
            pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": "many"}'])
def test_a_damaged_note_does_not_hide_the_refusal(tmp_path: Path, note: str) -> None:
    with held(tmp_path / "x.lock", tmp_path):
        (tmp_path / f"x.lock{NOTE}").write_text(note)
        with (
            pytest.raises(ArtefactError, match="Another process is writing"),
            held(tmp_path / "x.lock", tmp_path),
        ):
            pass


def test_a_lock_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.lock").mkdir()
    with (
        pytest.raises(ArtefactError, match=r"x\.lock"),
        held(tmp_path / "x.lock", tmp_path),
    ):
        pass
