"""The local server against `generate` on the same prompts, and under a mixed load.

``OMP_NUM_THREADS=2 python -m benchmarks.local_server speed`` prints tokens per second of 16 streams
beside our batched `generate` and beside the same requests sent one after another, and the time to
the first token of a lone request beside `generate`'s. ``… stress --minutes 10`` sends steered
requests of many kinds at concurrency 16, leaves a fifth of them early, and compares every reply
with its solo run.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings, generate_ids
from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port, running
from affectlens.serving.local.server import prepare
from affectlens.steering import generate_steered
from benchmarks.generation import pack as small_pack

MODEL = "smollm2-135m-instruct"
STREAMS, NEW = 16, 40
EVENTS = ("My train was cancelled", "We won the match", "The dog ran home", "I lost my keys")
SPECS = (
    "none",
    "anger=1;unit=natural",
    "fear=0.6,surprise=0.4;unit=natural;positions=all",
    "happiness=1;unit=natural;positions=prompt",
    "sadness=0.5;operator=project_out",
    "disgust=1;unit=natural;operator=add_keep_norm",
)


def prompts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    more = [
        "and",
        "then",
        "it",
        "rained",
        "while",
        "everybody",
        "was",
        "waiting",
        "for",
        "the",
        "bus",
        "near",
        "the",
        "old",
        "bridge",
    ]
    return [
        f"{rng.choice(EVENTS)} {' '.join(rng.sample(more, rng.randint(1, 12)))}."
        for _ in range(count)
    ]


def steering_pack(model: Any, size: float) -> Any:
    """Vectors of a given length, so that texts change and stay texts."""
    made = small_pack(model)
    vectors = {n: v / v.norm(dim=-1, keepdim=True) * size for n, v in made.vectors.items()}
    return replace(made, vectors=vectors, provenance=replace(made.provenance, model_name=MODEL))


@contextmanager
def server_of(folder: Path, threads: int, *extra: str) -> Generator[Server]:
    port = free_port()
    launch = prepare(
        [str(folder / "pack.safetensors")], MODEL,
        extra=["--port", str(port), "--dtype", "float32", "--max-rows", str(STREAMS), *extra],
    )  # fmt: skip
    environment = {**launch.environment, "OMP_NUM_THREADS": str(threads)}
    server = Server(f"http://{HOST}:{port}", timeout=600)
    with running(replace(launch, environment=environment), server, folder / "log"):
        yield server


def body_of(text: str, spec: str = "none", **options: Any) -> dict[str, Any]:
    given = {"max_tokens": NEW, "temperature": 0, "ignore_eos": True, "stream": True, **options}
    return {"messages": [{"role": "user", "content": text}], "steering": spec, **given}


def stream(
    server: Server, body: dict[str, Any], leave_after: int | None = None
) -> tuple[str, float]:
    """The text, and seconds to its first token."""
    request = urllib.request.Request(
        f"{server.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    start, first, text, parts = time.perf_counter(), 0.0, "", 0
    with urllib.request.urlopen(request, timeout=600) as reply:
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            new = event["choices"][0]["delta"]["content"] if event["choices"] else ""
            first = first or (time.perf_counter() - start if new else 0.0)
            text, parts = text + new, parts + 1
            if leave_after is not None and parts > leave_after:
                break
    return text, first


def at_once(server: Server, bodies: Sequence[dict[str, Any]]) -> float:
    """Seconds until all streams have ended."""
    threads = [threading.Thread(target=stream, args=(server, body)) for body in bodies]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


class Meter:
    """Seconds of the clock and of the processor, of this process and of the server's."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Meter:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        pairs = zip(self._now(), self._start, strict=True)
        self.clock, self.here, self.there = (after - before for after, before in pairs)

    def _now(self) -> tuple[float, float, float]:
        there = figure(self._server, "process_cpu_seconds_total")
        return time.perf_counter(), time.process_time(), there


def speed(rounds: int, threads: int, new: int) -> None:
    """Ratios by the processor's time hold on a busy machine, those by the clock do not."""
    torch.set_num_threads(threads)
    model = load_model(MODEL, dtype="float32")
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        print(f"  {name}: {value:.3f}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steering_pack(model, 1.0).save(folder / "pack.safetensors")
        with server_of(folder, threads) as server:
            stream(server, body_of("Hello.", max_tokens=4))
            model.generate("Hello.", max_new_tokens=4)
            for turn in range(rounds):
                texts = prompts(STREAMS, turn)
                tokens = STREAMS * new
                with Meter(server) as whole:
                    model.generate(texts, max_new_tokens=new, min_new_tokens=new)
                with Meter(server) as streams:
                    at_once(server, [body_of(text, max_tokens=new) for text in texts])
                few = texts[:2]
                with Meter(server) as single:
                    for text in few:
                        stream(server, body_of(text, max_tokens=new))
                note("generate, tokens/s", tokens / whole.clock)
                note("streams, tokens/s", tokens / streams.clock)
                note("one by one, tokens/s", len(few) * new / single.clock)
                note("generate, tokens per CPU s", tokens / whole.here)
                note("streams, tokens per CPU s", tokens / streams.there)
                note("one by one, tokens per CPU s", len(few) * new / single.there)
                for i in range(3):  # texts that nobody has sent before, but for the template
                    text = f"{turn} {i} {prompts(1, 1000 + 10 * turn + i)[0]}"
                    with Meter(server) as whole:
                        model.generate(text, max_new_tokens=1)
                    with Meter(server) as streams:
                        stream(server, body_of(text, max_tokens=1))
                    note("first token, generate, ms", 1000 * whole.clock)
                    note("first token, stream, ms", 1000 * streams.clock)
                    note("first token, generate, CPU ms", 1000 * whole.here)
                    note("first token, stream, CPU ms", 1000 * streams.there)
    for name, values in found.items():
        print(f"{name}: {statistics.median(values):.1f}")
    for over, under in (
        ("streams, tokens/s", "generate, tokens/s"),
        ("streams, tokens/s", "one by one, tokens/s"),
        ("streams, tokens per CPU s", "generate, tokens per CPU s"),
        ("streams, tokens per CPU s", "one by one, tokens per CPU s"),
        ("first token, stream, ms", "first token, generate, ms"),
        ("first token, stream, CPU ms", "first token, generate, CPU ms"),
    ):
        ratios = [a / b for a, b in zip(found[over], found[under], strict=True)]
        print(f"{over} / {under}: {statistics.median(ratios):.2f}")


def stress(minutes: float, threads: int) -> None:
    torch.set_num_threads(threads)
    model = load_model(MODEL, dtype="float32")
    texts = prompts(12)
    counts = {"finished": 0, "left": 0, "failed": 0, "differs": 0}
    lock, found = threading.Lock(), dict[tuple[str, str, int], set[str]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack = steering_pack(model, 25.0)
        pack.save(folder / "pack.safetensors")
        with server_of(folder, threads) as server:
            deadline = time.monotonic() + 60 * minutes

            def client(seed: int) -> None:
                rng = random.Random(seed)
                while time.monotonic() < deadline:
                    text, spec, new = rng.choice(texts), rng.choice(SPECS), rng.choice((4, 12, 30))
                    leaves = rng.randint(0, 8) if rng.random() < 0.2 else None
                    try:
                        said, _ = stream(server, body_of(text, spec, max_tokens=new), leaves)
                    except Exception as error:
                        print(repr(error))
                        with lock:
                            counts["failed"] += 1
                        continue
                    with lock:
                        if leaves is not None:
                            counts["left"] += 1
                            continue
                        counts["finished"] += 1
                        found.setdefault((text, spec, new), set()).add(said)

            threads_ = [threading.Thread(target=client, args=(i,)) for i in range(STREAMS)]
            for thread in threads_:
                thread.start()
            memory = [_memory(server)]
            while any(thread.is_alive() for thread in threads_):
                time.sleep(min(10, 6 * minutes))
                memory.append(_memory(server))
            time.sleep(1)
            state = server.ask("/plugins/affectlens/state").body
        kinds = list(found)
        for text, spec, new in kinds:
            ids = model.encode_chat(
                [{"role": "user", "content": text}], add_generation_prompt=True
            ).ids
            settings = GenerationSettings(new, min_new_tokens=new)
            reply = (
                generate_ids(model, [ids], settings)[0]
                if spec == "none"
                else generate_steered(model, pack, [ids], [spec], settings)[0]
            )
            alone = str(model.tokenizer.decode(list(reply), skip_special_tokens=True))
            counts["differs"] += found[text, spec, new] != {alone}
        assert "Traceback" not in (folder / "log").read_text()
    print(f"{len(kinds)} kinds of requests: {counts}")
    half = len(memory) // 2
    print(f"memory of the server, MiB: {memory[half]:.0f} half-way, {memory[-1]:.0f} at the end")
    print(f"left over: {state['workers'][0]}")


def figure(server: Server, name: str) -> float:
    """One of the server's metrics."""
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    line = next((ln for ln in text.splitlines() if ln.startswith(name)), "x nan")
    return float(line.split()[-1])


def _memory(server: Server) -> float:
    """Resident MiB of the server's process."""
    return figure(server, "process_resident_memory_bytes") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "stress"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=NEW)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.what == "speed":
        speed(given.rounds, given.threads, given.new)
    else:
        stress(given.minutes, given.threads)


if __name__ == "__main__":
    main()
