"""Tokens per second of real vLLM with and without the plug-in, side by side.

``python benchmarks/vllm.py`` in an environment with vLLM; ``--modes eager`` and ``--engines
reading`` narrow it down. Every engine lives in a process of its own, and rounds take turns with
rounds of an engine without the plug-in, so that a machine that slows down slows both down. Prints a
Markdown table.

The vectors are too small to change what is said, the work is the same: every request is steered by
a circuit on all layers, each with another emotion and strength, prompt and reply.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# This file is called like what it measures.
sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

REQUESTS, NEW = 32, 64
BASE = "no plug-in"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Arm:
    """Something to time.

    Attributes:
        name: For the table.
        engine: Which engine does it.
        steered, read: What the requests ask for.
    """

    name: str
    engine: str
    steered: bool = False
    read: bool = False


ENGINES: dict[str, dict[str, Any] | None] = {
    BASE: None,
    "installed": {},
    "steering": {"read": False, "operators": ["add"]},
    "all operators": {"read": False},
    "reading": {},
}
"""Settings of the plug-in; none at all means that it is not even loaded."""

ARMS = (
    Arm(BASE, BASE),
    Arm("plug-in installed, not configured", "installed"),
    Arm("adding only, idle", "steering"),
    Arm("adding only, all steered", "steering", steered=True),
    Arm("all operators, idle", "all operators"),
    Arm("all operators, all steered", "all operators", steered=True),
    Arm("with probes, idle", "reading"),
    Arm("with probes, all steered", "reading", steered=True),
    Arm("with probes, all steered and read", "reading", steered=True, read=True),
)


class Engine:
    """One process with one engine, asked through pipes."""

    def __init__(self, name: str, mode: str, dtype: str, pack: Path) -> None:
        given = {"name": name, "mode": mode, "dtype": dtype, "pack": str(pack)}
        without = {"VLLM_PLUGINS": "none"} if ENGINES[name] is None else {}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--engine", json.dumps(given)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT, **without},
        )  # fmt: skip
        self._hear()

    def seconds(self, arm: Arm) -> float:
        """How long a round takes."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"steered": arm.steered, "read": arm.read}) + "\n")
        self.process.stdin.flush()
        return float(self._hear())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def _hear(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return line[1:]
        raise RuntimeError(f"The engine has ended with {self.process.wait()}.")


def serve(name: str, mode: str, dtype: str, pack: str) -> None:
    """The other side of `Engine`."""
    from vllm import LLM, SamplingParams

    from affectlens.core import EMOTIONS
    from affectlens.models import pull

    settings = ENGINES[name]
    configured = settings is not None and name != "installed"
    steering = {"affectlens": {**(settings or {}), "packs": pack}} if configured else {}
    llm = LLM(
        str(pull("smollm2-135m-instruct")), dtype=dtype, max_model_len=1024,
        max_num_seqs=REQUESTS, max_num_batched_tokens=2048, enforce_eager=mode == "eager",
        enable_prefix_caching=False, disable_log_stats=True,
        additional_config=steering,
    )  # fmt: skip
    prompts = [f"Tell me about your day number {i}, please." for i in range(REQUESTS)]

    def params(i: int, given: dict[str, bool]) -> Any:
        spec = f"{EMOTIONS[i % 6]}={0.5 + i / 100};mode=circuit;positions=all"
        extra: dict[str, Any] = {"affectlens": spec} if given["steered"] else {}
        if given["read"]:
            extra["affectlens_read"] = True
        return SamplingParams(
            temperature=0.0, max_tokens=NEW, ignore_eos=True, extra_args=extra or None
        )

    def once(given: dict[str, bool]) -> float:
        import time

        asked = [params(i, given) for i in range(REQUESTS)]
        start = time.perf_counter()
        llm.generate(prompts, asked, use_tqdm=False)
        return time.perf_counter() - start

    once({"steered": configured, "read": False})
    once({"steered": False, "read": False})
    print("@ready", flush=True)
    for line in sys.stdin:
        print(f"@{once(json.loads(line))}", flush=True)


def make_pack(path: Path) -> None:
    """A circuit on all layers of the default model, with a probe in the middle."""
    import torch

    from affectlens.core import EMOTIONS, Provenance
    from affectlens.models import pull
    from affectlens.models.fingerprint import checkpoint_fingerprint
    from affectlens.steering.gates import Readout
    from affectlens.steering.pack import SteeringPack

    folder = pull("smollm2-135m-instruct")
    config = json.loads((folder / "config.json").read_text())
    n, d = config["num_hidden_layers"], config["hidden_size"]
    points = ("circuit.o_proj_out", "circuit.down_proj_out")
    classes = (*EMOTIONS, "neutral")
    SteeringPack(
        tuple(EMOTIONS),
        {point: torch.randn(len(EMOTIONS), n, d) * 1e-3 for point in points},
        {point: tuple(range(n)) for point in points},
        n, d, {"circuit": dict.fromkeys(EMOTIONS, 1.0)}, {"circuit": "all"},
        readout=Readout(classes, (n // 2,), torch.randn(1, 7, d) * 0.01, torch.zeros(1, 7)),
        provenance=Provenance("pack", model=checkpoint_fingerprint(folder)),
    ).save(path)  # fmt: skip


def measure(mode: str, dtype: str, arms: Sequence[Arm], rounds: int, pack: Path) -> Generator[str]:
    """Lines of the table. Two engines at a time: one without the plug-in and another one."""
    plain, *rest = arms
    base = Engine(plain.engine, mode, dtype, pack)
    alone: list[float] = []
    lines: list[str] = []
    for name in dict.fromkeys(arm.engine for arm in rest):
        engine, mine = Engine(name, mode, dtype, pack), [a for a in rest if a.engine == name]
        taken: dict[Arm, list[float]] = {arm: [] for arm in (plain, *mine)}
        for turn in range(rounds):
            order = [plain, *mine] if turn % 2 else [*mine, plain]
            for arm in order:
                taken[arm].append((base if arm is plain else engine).seconds(arm))
        engine.close()
        alone += taken[plain]
        lines += [line(mode, arm, taken[arm], taken[plain]) for arm in mine]
    base.close()
    yield line(mode, plain, alone, alone)
    yield from lines


def line(mode: str, arm: Arm, seconds: Sequence[float], base: Sequence[float]) -> str:
    ratios = [ours / theirs for ours, theirs in zip(seconds, base, strict=True)]
    return (
        f"| {mode} | {arm.name} | {REQUESTS * NEW / statistics.median(seconds):,.0f} "
        f"| {REQUESTS * NEW / min(seconds):,.0f} | {statistics.median(ratios):.3f} "
        f"| {min(seconds) / min(base):.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--modes", default="eager,compiled")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        serve(**json.loads(given.engine))
        return
    chosen = {BASE, *given.engines.split(",")}
    arms = [arm for arm in ARMS if arm.engine in chosen]
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "pack.safetensors"
        make_pack(pack)
        load = os.getloadavg()[0]
        print(
            f"SmolLM2-135M, {given.dtype}, {REQUESTS} requests x {NEW} tokens, {given.rounds} "
            f"rounds in turn, {os.cpu_count()} cores ({platform.machine()}), load {load:.1f} "
            "before.\n"
        )
        print("| | | tokens/s, median | best | time against no plug-in, median | best |")
        print("|---|---|---|---|---|---|", flush=True)
        for mode in given.modes.split(","):
            for row in measure(mode, given.dtype, arms, given.rounds, pack):
                print(row, flush=True)


if __name__ == "__main__":
    main()
