"""``benchmarks/gpu.sh`` is for machines with a GPU; in small it runs anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"


def test_everything_of_it_runs_in_small() -> None:
    done = subprocess.run(
        ["bash", str(SCRIPT), "--small", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("llama", "qwen3_moe"):
        assert f"- {name}: same" in done.stdout
    for row in ("capture, 5 sites", "replies, steered", "experts, one pass", "s in all"):
        assert row in done.stdout
    # Here both devices are one, so every figure comes out the same to the last digit.
    lines = [line for line in done.stdout.splitlines() if ": same (" in line]
    errors = [re.findall(r" (\de[+-]\d\d)", line) for line in lines]
    assert [len(each) for each in errors] == [14, 14]
    assert {error for each in errors for error in each} == {"0e+00"}
