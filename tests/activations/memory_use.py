"""Memory of captures: ``python -m tests.activations.memory_use MODEL FOLDER TEXTS...``.

Prints, as JSON, the largest resident memory of each capture above the loaded model, in MiB, and the
MiB it stored. Every capture runs in a fork of its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from affectlens.activations import capture
from affectlens.core.places import KINDS
from affectlens.models.loading import LanguageModel, load_model
from tests.activations import plain


def resident(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (highest since the last reset), MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(model: LanguageModel, texts: int, out: Path) -> dict[str, float]:
    Path("/proc/self/clear_refs").write_text("5")  # the highest is from here on
    before = resident("VmRSS")
    capture(
        model,
        plain.many(texts),
        sites=KINDS,
        positions="all",
        out=out,
        max_tokens_per_batch=2048,
        shard_bytes=4 << 20,
    )
    size = sum(path.stat().st_size for path in out.rglob("*.safetensors"))
    return {"above": resident("VmHWM") - before, "stored": size / 2**20}


def main(source: str, folder: Path, sizes: list[int]) -> None:
    torch.set_num_threads(1)
    model = load_model(source, device="cpu", dtype="float32")
    for texts in sizes:
        if os.fork() == 0:
            code = 1
            try:
                told = measure(model, texts, folder / str(texts))
                sys.stdout.write(json.dumps({"texts": texts, **told}) + "\n")
                sys.stdout.flush()
                code = 0
            finally:
                os._exit(code)
        assert os.wait()[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(n) for n in sys.argv[3:]])
