"""Tools that live in an environment of their own, and are run as users run them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

BIN = Path(os.environ.get("HARNESS_BIN", ".venv-harness/bin")).absolute()
PACK = "box:smollm2-135m-instruct"
MODEL = "smollm2-135m-instruct"


def run(command: Sequence[object], folder: Path, **variables: str) -> str:
    """What a command prints; it must end well."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    homes = {"HF_HOME": str(folder / "hf"), "XDG_DATA_HOME": str(folder / "data")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, **offline, **homes, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout
