"""A sweep that is killed goes on where it was and ends with the numbers of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

import affectlens
from affectlens.cli import app
from tests.sweeps.conftest import EMOTIONS

ROOT = Path(affectlens.__file__).parent.parent
TABLES = ("results", "controls", "comparisons")


def command(files: dict[str, str], out: Path) -> list[str]:
    return [
        "probe", "sweep", "--model", files["model"], "--corpus", files["plain"], "--corpus",
        files["quoted"], "--labels", ",".join(EMOTIONS), "--folds", "3", "--penalties", "0.01,1",
        "--draws", "50", "--controls", "majority", "--sites", "resid_post@1", "--device", "cpu",
        "--dtype", "float32", "--out", str(out),
    ]  # fmt: skip


def finished(out: Path) -> dict[Path, int]:
    """Fits and shards that lie there, and when each was written."""
    found = [*out.glob("fits/*/*.safetensors"), *out.glob("stores/*/shards/*.safetensors")]
    return {path: path.stat().st_mtime_ns for path in found}


def test_a_killed_sweep_loses_nothing(files: dict[str, str], tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "affectlens", *command(files, killed)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    patience = time.monotonic() + 600
    while not any(killed.glob("fits/*/*.safetensors")):
        assert child.poll() is None and time.monotonic() < patience
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before, cut = finished(killed), set(killed.rglob("*.tmp"))
    assert before and not (killed / "results.json").exists()
    for out in (killed, straight):
        done = CliRunner().invoke(app, command(files, out))
        assert done.exit_code == 0, done.output
    after = finished(killed)
    assert len(after) > len(before)
    assert {path: after[path] for path in before} == before  # nothing was read or fitted again
    tables: list[Any] = [
        [pq.read_table(out / f"{name}.parquet").to_pylist() for name in TABLES]
        for out in (killed, straight)
    ]
    assert repr(tables[0]) == repr(tables[1])  # NaN is NaN
    # What was being written when it was killed may lie about under a hidden name; nothing else.
    assert set(killed.rglob("*.tmp")) <= cut and all(one.name.startswith(".") for one in cut)
