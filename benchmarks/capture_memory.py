"""Memory of a capture above the model, for corpora of growing length.

Run it as ``OMP_NUM_THREADS=2 python benchmarks/capture_memory.py 100 1000 10000``; Linux only.
Every length runs in a process of its own, on the default model: all blocks, one position, to disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SUBLAYERS = "resid_pre,resid_mid,resid_post,attn_out,mlp_out"


def resident(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (highest since the last reset), MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(texts: int, sites: str, dtype: str, model_name: str) -> dict[str, float]:
    from affectlens.activations import capture
    from affectlens.datasets import Corpus, load
    from affectlens.models import load_model

    model = load_model(model_name, device="cpu")
    records = load("replies").records
    # As often as needed, each time under other names.
    many = [
        replace(records[i % len(records)], id=f"{i}", group=f"g{i}:neutral") for i in range(texts)
    ]
    corpus = Corpus("repeated", "replies", tuple(many))
    with tempfile.TemporaryDirectory() as folder:
        Path("/proc/self/clear_refs").write_text("5")  # the highest is from here on
        before, started = resident("VmRSS"), time.perf_counter()
        store = capture(model, corpus, sites=sites, dtype=dtype, out=Path(folder) / "acts")
        seconds = time.perf_counter() - started
        peak = resident("VmHWM")
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {
        "rows": len(store),
        "model": before,
        "above": peak - before,
        "stored": size / 2**20,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--sites", default=SUBLAYERS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        told = measure(options.texts[0], options.sites, options.dtype, options.model)
        print(json.dumps(told))
        return
    print("| texts | process before, MiB | peak above it, MiB | stored, MiB | seconds |")
    print("|---|---|---|---|---|")
    for n in options.texts:
        again = ["--one", "--sites", options.sites, "--dtype", options.dtype]
        command = [sys.executable, __file__, str(n), *again, "--model", options.model]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        told = json.loads(lines.splitlines()[-1])
        figures = " | ".join(f"{told[key]:,.0f}" for key in ("model", "above", "stored", "seconds"))
        print(f"| {n:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
