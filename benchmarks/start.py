"""How long it takes to begin: the import, the help, a steered reply's first token.

    python -m benchmarks.start [--repeats 5]

Each is a process of its own; the least of some repeats is printed, since whatever else the machine
does only adds. Weights are in the cache, and were read before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "smollm2-135m-instruct"
IMPORT = "import time; t = time.perf_counter(); import affectlens; print(time.perf_counter() - t)"


def least(command: list[str], repeats: int) -> float:
    """Seconds of the fastest of some processes."""
    taken: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    return min(taken)


def save_pack(file: Path) -> None:
    """A pack of the default model that writes in ten blocks, as real ones do."""
    import torch

    import affectlens as al
    from affectlens.core.artefact import Provenance

    model = al.load_model(MODEL)
    layers = tuple(range(10, 20))
    al.SteeringPack(
        emotions=("anger",),
        vectors={"residual.resid_post": torch.randn(1, len(layers), model.d_model)},
        layers={"residual.resid_post": layers},
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={"residual": {"anger": 1.0}},
        positions={"residual": "generated"},
        provenance=Provenance("pack", model.fingerprint, MODEL),
    ).save(file)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    affectlens = [sys.executable, "-m", "affectlens"]
    lines = [subprocess.check_output([sys.executable, "-c", IMPORT]) for _ in range(repeats)]
    rows = {
        "import affectlens": min(map(float, lines)),
        "affectlens --help": least([*affectlens, "--help"], repeats),
    }
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "pack.safetensors"
        save_pack(pack)
        steer = ["steer", "My train was cancelled.", "-e", "anger=1", "--max-new-tokens", "1"]
        command = [*affectlens, *steer, "--pack", str(pack)]
        rows["affectlens steer, to the first token"] = least(command, repeats)
    print("| what | seconds |\n|---|---|")
    for what, seconds in rows.items():
        print(f"| {what} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
