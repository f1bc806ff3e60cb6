from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import tiny_hf, tiny_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    tiny_hf("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(tmp_path), "750", "1500"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.activations.memory_use", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    short, long = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert long["stored"] > 1.9 * short["stored"] > 190
    assert long["above"] < 160
    # What grows is tokens, labels and the plan: a few hundred bytes a row here, of 2,700 stored.
    assert long["above"] - short["above"] < (long["stored"] - short["stored"]) / 10
