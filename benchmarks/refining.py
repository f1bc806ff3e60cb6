"""How long vectors of six emotions are refined, on the parts of a finished run.

OMP_NUM_THREADS=2 python benchmarks/refining.py --run runs/demo
"""

from __future__ import annotations

import argparse
import time

import affectlens as al
from affectlens.geometry import Directions
from affectlens.steering.refine import RefineSettings, refine_circuit, refine_directions


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--run", default="runs/demo", help="finished run folder")
    ask.add_argument("--steps", type=int, default=32)
    given = ask.parse_args()
    model = al.load_model("smollm2-135m-instruct")
    replies = al.datasets.load("replies").filter(role="direction")
    directions = Directions.load(f"{given.run}/directions.safetensors")
    circuit = al.Circuit.load(f"{given.run}/circuit.safetensors")
    settings = RefineSettings(steps=given.steps)
    layers = range(model.n_layers // 3, 2 * model.n_layers // 3)
    begun = time.perf_counter()
    refine_directions(model, directions, replies, layers=layers, settings=settings)
    between = time.perf_counter()
    refine_circuit(model, circuit, replies, settings=settings)
    print(
        f"six emotions, {given.steps} steps of {settings.groups_per_step} groups: directions of "
        f"{len(layers)} blocks {between - begun:.0f} s, the circuit's units "
        f"{time.perf_counter() - between:.0f} s"
    )


if __name__ == "__main__":
    main()
