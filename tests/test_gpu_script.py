"""``benchmarks/gpu.sh`` is for machines with a GPU; in small it runs anywhere."""

from __future__ import annotations

import os
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
    # The same figures come out of two runs of one device: to the last digit.
    errors = [part for part in done.stdout.split("(")[1].split(")")[0].split("; ")]
    assert len(errors) > 12 and all(part.endswith(" 0e+00") for part in errors)
