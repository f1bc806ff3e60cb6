"""Writing a store: shards, going on, damage, locks, full disks and killed processes."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import ActivationStore
from affectlens.activations.store.folder import LocalFolder, open_folder
from affectlens.activations.store.shards import ShardWriter, bytes_per_row
from affectlens.activations.store.writer import opened_for_writing, read_layout
from affectlens.core.errors import ArtefactError, DataError, MismatchError
from tests.activations.store.made_up import LARGE, SITES, WIDTHS, MadeUp, contents, made_up

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


def _whole(folder: Path, made: MadeUp | None = None) -> dict[str, bytes]:
    """What an undisturbed writer leaves."""
    made = made or made_up()
    made.write(folder)
    return contents(folder)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_same_rows_give_the_same_bytes(dtype: str, tmp_path: Path) -> None:
    made = made_up(dtype=dtype)
    expected = _whole(tmp_path / "one", made)
    assert sorted(expected) == [
        "manifest.json",
        "rows.parquet",
        *(f"shards/{i:05d}.safetensors" for i in range(5)),
        "writer.lock",
    ]
    made.write(tmp_path / "other" / "deep", step=1)  # batches of another size
    assert contents(tmp_path / "other" / "deep") == expected
    before = [p.stat().st_mtime_ns for p in sorted((tmp_path / "one").rglob("*.*s*"))]
    made.write(tmp_path / "one")  # finished: nothing is written again
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "one").rglob("*.*s*"))] == before


@pytest.mark.parametrize("first", [(), (0,), (3,), (0, 1, 2, 3, 4)])
def test_it_goes_on_where_it_stopped(first: tuple[int, ...], tmp_path: Path) -> None:
    made, out = made_up(), tmp_path / "acts"
    expected = _whole(tmp_path / "whole")
    assert read_layout(out) is None
    made.write(out, only=first)
    assert read_layout(out) == made.spec.layout
    with pytest.raises(ArtefactError, match=rf"not finished \({len(first)} of 5 shards\)"):
        ActivationStore.open(out)
    with opened_for_writing(out, made.spec, made.table) as session:
        assert session.done == frozenset(first)
        if len(first) < 5:
            with pytest.raises(ArtefactError, match=f"lacks {5 - len(first)} of 5 shards"):
                session.finish()
    made.write(out)
    assert contents(out) == expected


@pytest.mark.parametrize(
    ("damage", "complete"),
    [(how, done) for how in ("flip", "cut", "gone") for done in (True, False)]
    + [("receipt", False)],  # a finished store has none
)
def test_only_damaged_shards_are_made_again(
    damage: str, complete: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made, out = made_up(), tmp_path / "acts"
    expected = _whole(tmp_path / "whole")
    made.write(out, only=None if complete else {0, 1, 2})
    victim = out / "shards" / "00001.safetensors"
    whole = victim.read_bytes()
    changed = bytearray(whole)
    changed[-9] ^= 4
    if damage == "gone":
        victim.unlink()
    elif damage == "receipt":
        (out / "shards" / "00001.json").write_text('{"file": "x"')
    else:
        victim.write_bytes(changed if damage == "flip" else whole[:-3])
    with (
        caplog.at_level(logging.WARNING),
        opened_for_writing(out, made.spec, made.table) as session,
    ):
        assert session.done == frozenset({0, 2, 3, 4} if complete else {0, 2})
        if complete:
            with pytest.raises(ArtefactError, match=r"not finished \(4 of 5 shards\)"):
                ActivationStore.open(out)
    named = {"flip": "is not what was written", "cut": "is cut short", "gone": "is missing"}
    assert "00001" in caplog.text and named.get(damage, "is damaged") in caplog.text
    assert "00000" not in caplog.text and "00002" not in caplog.text
    made.write(out)
    assert contents(out) == expected


@pytest.mark.parametrize("complete", [True, False])
def test_a_damaged_table_is_made_again(complete: bool, tmp_path: Path) -> None:
    made, out = made_up(), tmp_path / "acts"
    expected = _whole(tmp_path / "whole")
    made.write(out, only=None if complete else {0})
    (out / "rows.parquet").write_bytes(b"PAR1")
    with opened_for_writing(out, made.spec, made.table) as session:
        assert len(session.done) == (5 if complete else 1)
    made.write(out)
    assert contents(out) == expected


def test_another_capture_is_refused_by_name(tmp_path: Path) -> None:
    made, out = made_up(), tmp_path / "acts"
    made.write(out)
    before = contents(out)
    parameters = dict(made.spec.provenance.parameters)
    others = {
        r"weights \(made/up, not an/other\)\. Choose": {
            "model": "c" * 16,
            "model_name": "an/other",
        },
        r"weights\. Choose": {"model": "c" * 16},
        r"corpus\. Choose": {"corpus": "d" * 16},
        r"dtype \(float32, not int8\)\. Choose": {"parameters": parameters | {"dtype": "int8"}},
        r"sites\. Choose": {"parameters": parameters | {"sites": ["blocks.0.hook_resid_post"]}},
        r"chat template\. Choose": {"parameters": parameters | {"template": "e" * 16}},
        r"seed \(0, not 1\), code version": {"parameters": parameters | {"seed": 1, "code": "2"}},
    }
    for message, changes in others.items():
        with pytest.raises(MismatchError, match=f"what differs: {message}"):
            made.with_provenance(**changes).write(out)
        assert contents(out) == before
    renamed = made.with_provenance(model_name="the/same")  # the name alone is no difference
    renamed.write(out)
    assert contents(out) == before


def test_force_and_starting_anew(tmp_path: Path) -> None:
    out = tmp_path / "acts"
    made_up(seed=1, texts_per_shard=2).write(out)
    made = made_up()
    made.write(out, force=True)
    expected = _whole(tmp_path / "whole")
    assert contents(out) == expected
    other = made_up(texts_per_shard=3)
    with pytest.raises(MismatchError, match=r"other shards \(texts_per_shard 5, not .* 3\)"):
        other.write(out)
    other.write(out, resume=False)
    assert contents(out) == _whole(tmp_path / "other", other)
    made.write(out, resume=False, only={2})
    assert not (out / "shards" / "00000.safetensors").exists()
    made.write(out)
    assert contents(out) == expected


def test_a_place_of_something_else_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(ArtefactError, match="no activation store; choose another folder"):
            made_up().write(thesis, force=force, resume=not force)
    assert contents(thesis) == {"chapter.txt": b"x"}
    with pytest.raises(ArtefactError, match="is a file"):
        made_up().write(thesis / "chapter.txt")
    (tmp_path / "empty").mkdir()
    assert made_up().write(tmp_path / "empty") is not None


def _script(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


_HOLD = """
import sys, time
from tests.activations.store.made_up import made_up
from affectlens.activations.store.writer import opened_for_writing
made = made_up()
with opened_for_writing(sys.argv[1], made.spec, made.table):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_and_a_dead_one_does_not_count(tmp_path: Path) -> None:
    made, out = made_up(), tmp_path / "acts"
    holder = _script("-c", _HOLD, str(out))
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        for options in ({}, {"force": True}, {"resume": False}):
            with pytest.raises(ArtefactError, match=r"Another process is writing .* wait"):
                made.write(out, **options)
    finally:
        holder.kill()
        holder.wait()
    made.write(out)
    with opened_for_writing(out, made.spec, made.table):  # one process, twice
        with pytest.raises(ArtefactError, match="Another process is writing"):
            made.write(out)
        readers = [ActivationStore.open(out) for _ in range(2)]
        assert torch.equal(readers[0].tensor(SITES[0], "all"), readers[1].tensor(SITES[0], "all"))
    assert contents(out) == _whole(tmp_path / "whole")


def test_a_writer_killed_at_any_moment_leaves_what_can_be_finished(tmp_path: Path) -> None:
    """Forked children are killed at 20 random moments; the next writer ends in the same bytes."""
    made = made_up(600, texts_per_shard=30, widths=LARGE)
    started = time.perf_counter()
    expected = _whole(tmp_path / "whole", made)
    undisturbed = time.perf_counter() - started
    moments, states = random.Random(0), list[int]()
    for moment in range(14):
        out = tmp_path / f"acts{moment}"
        for _ in range(4 if moment % 7 == 0 else 1):  # some are killed again and again
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    made.write(out)
                    code = 0
                finally:
                    os._exit(code)
            time.sleep(undisturbed * moments.uniform(0.02, 0.9))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            states.append(len(list(out.glob("shards/*.json"))))
        made.write(out)
        assert contents(out) == expected
        shutil.rmtree(out)
    assert len(states) == 20 and len(set(states)) > 4  # killed at different stages


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_what_is_finished(small_disk: Path, tmp_path: Path) -> None:
    made = made_up(600, texts_per_shard=60, widths=LARGE)
    expected = _whole(tmp_path / "whole", made)
    assert sum(map(len, expected.values())) > 6 << 20
    with pytest.raises(ArtefactError, match=r"No space left to write .* free some disk"):
        made.write(small_disk / "acts")
    receipts = list((small_disk / "acts" / "shards").glob("*.json"))
    assert 0 < len(receipts) < 10
    assert not list((small_disk / "acts").rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    kept = {p: p.stat().st_mtime_ns for p in small_disk.rglob("*.safetensors")}
    made.write(small_disk / "acts")
    assert contents(small_disk / "acts") == expected
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_a_disk_full_at_the_third_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, out = made_up(), tmp_path / "acts"
    real = Path.open

    def full(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith(".00002.safetensors") and arguments == ("wb",):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ArtefactError, match=r"No space left to write .*00002\.safetensors"):
        made.write(out)
    monkeypatch.undo()
    with opened_for_writing(out, made.spec, made.table) as session:
        assert session.done >= {0, 1} and 2 not in session.done
    made.write(out)
    assert contents(out) == _whole(tmp_path / "whole")


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", float("nan"), r"blocks\.1\.hook_resid_post of record r7 holds NaN"),
        ("float16", float("-inf"), r"blocks\.1\.hook_resid_post of record r7 holds NaN or inf"),
        ("int8", float("nan"), r"blocks\.1\.hook_resid_post of record r7 holds NaN"),
        ("bfloat16", float("inf"), r"blocks\.1\.hook_resid_post of record r7 holds NaN or inf"),
        ("float16", -7e4, r"of record r7 does not fit float16 \(largest value 7e\+04\)"),
        ("bfloat16", 3.4e38, r"of record r7 does not fit bfloat16"),
    ],
)
@pytest.mark.parametrize("step", [1, 50])
def test_numbers_that_are_none_are_named(
    dtype: str, value: float, message: str, step: int, tmp_path: Path
) -> None:
    made = made_up(dtype=dtype)
    row = made.table.column("id").to_pylist().index("r7")
    made.values[SITES[1], "last"][row, 2] = value
    with pytest.raises(DataError, match=message):
        made.write(tmp_path / "acts", step=step)


def test_the_largest_number_that_fits_is_kept(tmp_path: Path) -> None:
    made = made_up(dtype="float16")
    made.values[SITES[1], "last"][4, 2] = 65519.0  # rounds down to 65504
    store = made.write(tmp_path / "acts")
    assert store is not None and float(store.to_torch(SITES[1], "last")[4, 2]) == 65504


def test_a_shard_that_lacks_rows_is_not_written(tmp_path: Path) -> None:
    made = made_up()
    with opened_for_writing(tmp_path / "acts", made.spec, made.table) as session:
        with (
            pytest.raises(ValueError, match="shard 1 was given 2 of 5 rows of last"),
            ShardWriter(session.folder, made.spec, CPU) as writer,
        ):
            made.fill(writer, 0)
            writer.begin(1)
            writer.write(SITES[0], "last", 5, torch.zeros(2, WIDTHS[SITES[0]]))
            writer.end()
        with pytest.raises(ArtefactError, match="lacks 4 of 5 shards"):
            session.finish()


def test_rows_come_in_any_floating_dtype_and_in_inference_mode(tmp_path: Path) -> None:
    made = made_up(dtype="int8")
    for values in made.values.values():
        values.copy_(values.bfloat16())
    expected = _whole(tmp_path / "whole", made)
    with (
        torch.inference_mode(),
        opened_for_writing(tmp_path / "acts", made.spec, made.table) as session,
    ):
        with ShardWriter(session.folder, made.spec, CPU) as writer:
            for shard in range(5):
                writer.begin(shard)
                for position, (start, stop) in made.spec.shards[shard].items():
                    lies = torch.from_numpy(made.stored[position]).argsort()[start:stop]
                    for site in SITES:
                        rows = made.values[site, position][lies].bfloat16()
                        writer.write(site, position, start, rows)
                writer.end()
        session.finish()
    assert contents(tmp_path / "acts") == expected


def test_no_more_than_two_shards_are_held(tmp_path: Path) -> None:
    """Memory does not grow with the store."""
    made = made_up(120, texts_per_shard=10, widths={SITES[0]: 2048})
    assert bytes_per_row(made.spec.widths, "float32") == 8192
    assert bytes_per_row(made.spec.widths, "int8") == 8192
    assert bytes_per_row(made.spec.widths, "bfloat16") == 4096
    with opened_for_writing(tmp_path / "acts", made.spec, made.table) as session:
        with ShardWriter(session.folder, made.spec, CPU) as writer:
            for shard in range(12):
                made.fill(writer, shard)
            assert len(writer._buffers) == 2
        session.finish()
        ActivationStore.open(session.folder).verify()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_on_a_gpu_give_the_same_bytes(tmp_path: Path) -> None:
    made = made_up(600, texts_per_shard=60, widths=LARGE, dtype="bfloat16")
    expected = _whole(tmp_path / "whole", made)
    device = torch.device("cuda")
    with opened_for_writing(tmp_path / "acts", made.spec, made.table) as session:
        with ShardWriter(session.folder, made.spec, device) as writer:
            for shard in range(len(made.spec.shards)):
                writer.begin(shard)
                for position, (start, stop) in made.spec.shards[shard].items():
                    lies = torch.from_numpy(made.stored[position]).argsort()[start:stop]
                    for site in made.spec.widths:
                        rows = made.values[site, position][lies].to(device)
                        writer.write(site, position, start, rows)
                writer.end()
        session.finish()
    assert contents(tmp_path / "acts") == expected


def test_a_folder_one_may_not_write_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ArtefactError, match=r"May not write .* choose a folder"):
        made_up().write(tmp_path / "acts")
    assert open_folder(tmp_path / "acts").names() == []


class _Crash(BaseException):
    pass


def _crashing(path: Path, after: int) -> tuple[LocalFolder, list[str]]:
    """A folder whose process dies before its ``after``-th change, and the changes so far."""
    changes = list[str]()

    class Crashing(LocalFolder):
        def write(self, name: str, *chunks: Any) -> None:
            _note(f"write {name}")
            super().write(name, *chunks)

        def remove(self, name: str) -> None:
            _note(f"remove {name}")
            super().remove(name)

    def _note(change: str) -> None:
        if len(changes) >= after:
            raise _Crash(change)
        changes.append(change)

    return Crashing(path), changes


@pytest.mark.parametrize("situation", ["new", "damaged", "forced"])
def test_a_crash_before_any_change_can_be_gone_on_from(situation: str, tmp_path: Path) -> None:
    """Every change to the folder is tried, so no order of them is left to chance."""
    made = made_up(8, texts_per_shard=3)
    expected = _whole(tmp_path / "whole", made)
    other = made_up(12, texts_per_shard=3, seed=1)
    options = {"force": True} if situation == "forced" else {}
    seen = set[str]()
    for after in range(100):
        out = tmp_path / f"acts{after}"
        if situation == "damaged":
            made.write(out)
            for name in ("shards/00000.safetensors", "shards/00002.safetensors", "rows.parquet"):
                (out / name).write_bytes(b"cut")
        if situation == "forced":
            other.write(out)
        folder, changes = _crashing(out, after)
        crashed = False
        try:
            made.write(folder, **options)
        except _Crash as crash:
            crashed = True
            seen.add(str(crash).split()[0] + " " + Path(str(crash).split()[1]).suffix)
        made.write(out, **options)
        assert contents(out) == expected, changes
        if not crashed:
            break
    assert after > 10 and not crashed
    assert {"write .json", "write .safetensors", "write .parquet", "remove .json"} <= seen
