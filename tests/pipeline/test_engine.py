"""The stage runner: what is redone, what is skipped, and what a crash leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from affectlens.core import UnknownNameError
from affectlens.pipeline.engine import Runner, Stage


def make(folder: Path, calls: list[str], **parameters: object) -> Runner:
    def work(name: str):
        def run() -> list[str]:
            calls.append(name)
            (folder / f"{name}.txt").write_text(name)
            return [f"{name}.txt"]

        return run

    needs = {"a": (), "b": ("a",), "c": ("b",), "side": ()}
    stages = [
        Stage(n, needs[n], {"p": parameters.get(n, 0)}, work(n), n) for n in ("a", "b", "c", "side")
    ]
    return Runner(folder, stages)


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


def test_touched_or_lost_file_is_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    calls.clear()
    (tmp_path / "b.txt").unlink()
    make(tmp_path, calls).run()
    assert calls == ["b"]
    calls.clear()
    (tmp_path / "a.txt").write_text("tampered")
    make(tmp_path, calls).run()
    assert calls == ["a"]


def test_damaged_receipt_means_not_done(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run()
    calls.clear()
    (tmp_path / "state" / "a.json").write_text('{"stage": "a"')
    make(tmp_path, calls).run()
    assert calls == ["a"]


def test_only_what_a_stage_needs(tmp_path: Path) -> None:
    calls: list[str] = []
    make(tmp_path, calls).run(until="b")
    assert calls == ["a", "b"]


def test_failure_keeps_what_was_done(tmp_path: Path) -> None:
    calls: list[str] = []
    runner = make(tmp_path, calls)

    def broken() -> list[str]:
        raise KeyboardInterrupt

    stages = [*runner.stages[:1], Stage("b", ("a",), {"p": 0}, broken, "b")]
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path, stages).run()
    calls.clear()
    make(tmp_path, calls).run()
    assert calls == ["b", "c", "side"]


def test_unknown_stage_names_the_valid_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="choose one of"):
        make(tmp_path, []).run(until="porbe")
