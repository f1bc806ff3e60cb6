"""Reading with a probe against capturing: ``python -m benchmarks.reading --run runs/demo``.

A thousand short texts are read with a calibrated probe, token by token and as a whole, and, in
turn, the site that the probe reads is captured of them (mean over tokens, into a store). Printed
are wall and CPU seconds of each, and the ratio; believe the CPU's on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import affectlens as al
from affectlens.probes.reading import plain_corpus
from benchmarks.local_server import prompts


def seconds(job: Callable[[], object]) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("--run", default="runs/demo", help="run folder with activations")
    ask.add_argument("--layer", type=int, default=15)
    ask.add_argument("--texts", type=int, default=1000)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = ask.parse_args()
    torch.set_num_threads(given.threads)
    model = al.load_model("smollm2-135m-instruct")
    store = al.ActivationStore.open(f"{given.run}/activations/replies")
    site = f"resid_post@{given.layer}"
    probe = al.fit_probe(store, site)
    texts = plain_corpus(prompts(given.texts))
    al.read(model, probe, prompts(32))
    ratios: list[float] = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "store"
            captured = seconds(
                lambda out=out: al.capture(model, texts, sites=site, positions="mean:text", out=out)
            )
        read = seconds(lambda: al.read(model, probe, texts))
        ratios.append(captured[1] / read[1])
        print(
            f"capture {captured[0]:.1f} s (CPU {captured[1]:.1f}), "
            f"read {read[0]:.1f} s (CPU {read[1]:.1f}): {ratios[-1]:.2f} of capture's speed"
        )
    print(f"median {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
