"""The stage runner: what is redone, what is skipped, and what a crash leaves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from affectlens.core import UnknownNameError
from affectlens.pipeline.engine import Runner, Stage
from affectlens.pipeline.file_digests import Digests


def make(folder: Path, calls: list[str], **parameters: object) -> Runner:
    def work(name: str):
        def run() -> list[str]:
            calls.append(name)
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text(name)
            return [f"{name}.txt"]

        return run

    needs = {"a": (), "b": ("a",), "c": ("b",), "side": ()}
    stages = [
        Stage(n, needs[n], lambda n=n: {"p": parameters.get(n, 0)}, work(n), n)
        for n in ("a", "b", "c", "side")
    ]
    return runner(folder, stages)


def runner(folder: Path, stages: Sequence[Stage]) -> Runner:
    return Runner(folder, stages, Digests(folder / "state" / "digests.json"))


def test_second_run_does_nothing(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    assert calls == ["a", "b", "c", "side"]
    make(tmp_path, calls).run()
    assert calls == ["a", "b", "c", "side"]


def test_changed_stage_and_its_users_are_redone_and_no_other(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    calls.clear()
    make(tmp_path, calls, b=1).run()
    assert calls == ["b", "c"]


def test_a_lost_or_damaged_file_is_made_again_and_so_is_what_follows(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    calls.clear()
    (tmp_path / "b.txt").unlink()
    make(tmp_path, calls).run()
    assert calls == ["b", "c"]
    calls.clear()
    (tmp_path / "a.txt").write_text("tampered")
    make(tmp_path, calls).run()
    assert calls == ["a", "b", "c"]


def test_what_follows_is_made_again_even_if_that_was_stopped(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    (tmp_path / "a.txt").unlink()
    make(tmp_path, calls).run(until="a")
    calls.clear()
    make(tmp_path, calls).run()
    assert calls == ["b", "c"]


def test_an_edit_of_the_same_size_and_date_is_seen(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    make(tmp_path, calls).run()
    time.sleep(0.15)
    make(tmp_path, calls).run()  # now the looks of the file are remembered
    assert "b.txt" in (tmp_path / "state" / "digests.json").read_text()
    calls.clear()
    stat = (tmp_path / "b.txt").stat()
    (tmp_path / "b.txt").write_text("B")
    os.utime(tmp_path / "b.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    make(tmp_path, calls).run()
    assert calls == ["b", "c"]


def test_a_copied_or_touched_folder_does_not_start_over(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path / "one", calls).run()
    calls.clear()
    subprocess.run(["cp", "-r", tmp_path / "one", tmp_path / "two"], check=True)
    make(tmp_path / "two", calls).run()
    for file in (tmp_path / "two").rglob("*"):
        os.utime(file, (1, 1))
    make(tmp_path / "two", calls).run()
    assert not calls
    # The copy checks its own files, not those it was copied from.
    (tmp_path / "two" / "b.txt").write_text("B")
    make(tmp_path / "one", calls).run()
    assert not calls
    make(tmp_path / "two", calls).run()
    assert calls == ["b", "c"]


def test_damaged_receipt_means_not_done(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    calls.clear()
    (tmp_path / "state" / "a.json").write_text('{"stage": "a"')
    make(tmp_path, calls).run()
    assert calls == ["a", "b", "c"]


def test_only_what_a_stage_needs(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run(until="b")
    assert calls == ["a", "b"]


def test_failure_keeps_what_was_done(tmp_path: Path) -> None:
    calls: list[str] = []
    good = make(tmp_path, calls)

    def broken() -> list[str]:
        raise KeyboardInterrupt

    stages = [*good.stages[:1], Stage("b", ("a",), lambda: {"p": 0}, broken, "b")]
    with pytest.raises(KeyboardInterrupt):
        runner(tmp_path, stages).run()
    calls.clear()
    make(tmp_path, calls).run()
    assert calls == ["b", "c", "side"]


def test_unknown_stage_names_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="choose one of"):
        make(tmp_path, []).run(until="porbe")
