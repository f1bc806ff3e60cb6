"""Many streaming requests with random specs and random cancellations, for minutes.

``python benchmarks/vllm_stress.py --requests 200 --minutes 5`` in an environment with vLLM. Clients
keep so many requests under way at a real engine in a process of its own; some of them go away in
the middle of a reply. At the end no slot may be taken, memory may not have grown, and every reply
that was finished must be what the same request got alone. Exits with 1 otherwise.

Replies are greedy and in float32. A request is left out where two tokens are so close that the
shape of a batch decides between them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A file beside this one is called vllm.
sys.path = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]

NEW, DOUBT = 24, 2e-3
SLACK_MIB = 48
"""Growth that is not a leak."""

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Asked:
    """A request of the pool.

    Attributes:
        prompt: Token ids.
        extra: Its steering.
        new: Tokens of the reply.
    """

    prompt: tuple[int, ...]
    extra: dict[str, Any]
    new: int


@dataclass
class Tally:
    """What has happened."""

    finished: int = 0
    cancelled: int = 0
    read: int = 0
    tokens: int = 0
    wrong: list[str] = field(default_factory=list[str])
    memory: list[float] = field(default_factory=list[float])


def random_spec(chance: random.Random, emotions: Sequence[str], modes: Sequence[str]) -> str | None:
    if chance.random() < 0.15:
        return None
    names = chance.sample(list(emotions), chance.choice([1, 1, 1, 2, 3]))
    operator = chance.choice(["add", "add", "add", "add_keep_norm", "project_out", "clamp"])
    limit = 1.0 if operator == "project_out" else 1.5
    weights = ",".join(f"{name}={chance.uniform(-limit, limit):.3f}" for name in names)
    positions = chance.choice(["generated", "last_prompt+generated", "prompt", "all"])
    return f"{weights};mode={chance.choice(list(modes))};operator={operator};positions={positions}"


def make_pool(given: Any, size: int, vocab: int, pack: Any) -> list[Asked]:
    """Prompts with common beginnings, so that the prefix cache has work to do."""
    chance = random.Random(given.seed)
    roots = [[chance.randrange(5, vocab) for _ in range(160)] for _ in range(6)]
    pool: list[Asked] = []
    for _ in range(size):
        prompt = chance.choice(roots)[: chance.randint(1, 140)]
        spec = random_spec(chance, pack.emotions, pack.modes)
        extra = {} if spec is None else {"affectlens": spec}
        if chance.random() < 0.3:
            extra["affectlens_read"] = True
        pool.append(Asked(tuple(prompt), extra, chance.randint(4, NEW)))
    return pool


def parameters(asked: Asked, **options: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0, max_tokens=asked.new, ignore_eos=True, detokenize=False,
        extra_args=asked.extra or None, **options,
    )  # fmt: skip


async def alone(engine: Any, asked: Asked, name: str) -> list[int] | None:
    """The reply to one request that nobody else runs beside; None if it is a close call."""
    tokens: list[int] = []
    close = False
    async for output in engine.generate(
        {"prompt_token_ids": list(asked.prompt)}, parameters(asked, logprobs=2), name
    ):
        reply = output.outputs[0]
        tokens = list(reply.token_ids)
        for found in reply.logprobs:
            best = sorted((one.logprob for one in found.values()), reverse=True)
            close |= best[0] - best[1] < DOUBT
    return None if close else tokens


async def client(
    engine: Any,
    number: int,
    pool: Sequence[tuple[Asked, list[int]]],
    end: float,
    tally: Tally,
    seed: int,
) -> None:
    """One request after the other until the time is over."""
    from vllm.sampling_params import RequestOutputKind

    chance, turn = random.Random(f"{seed} {number}"), 0
    while time.monotonic() < end:
        asked, wanted = chance.choice(pool)
        name, turn = f"{number}-{turn}", turn + 1
        leaves = chance.randint(0, asked.new) if chance.random() < 0.3 else None
        params = parameters(asked, output_kind=RequestOutputKind.DELTA)
        tokens: list[int] = []
        readings = 0
        stream = engine.generate({"prompt_token_ids": list(asked.prompt)}, params, name)
        try:
            async for output in stream:
                tokens += output.outputs[0].token_ids
                report = (output.kv_transfer_params or {}).get("affectlens")
                readings += len(report["tokens"]) if report else 0
                if leaves is not None and len(tokens) >= leaves:
                    break
        finally:
            await stream.aclose()  # what a client that hangs up does
        tally.tokens += len(tokens)
        if leaves is not None:
            tally.cancelled += 1
            if tokens != wanted[: len(tokens)]:
                tally.wrong.append(f"{asked} began with {tokens} instead of {wanted}")
            continue
        tally.finished += 1
        if tokens != wanted:
            tally.wrong.append(f"{asked} got {tokens} instead of {wanted}")
        if asked.extra.get("affectlens_read"):
            tally.read += 1
            if readings != len(tokens):
                tally.wrong.append(f"{asked} got {readings} readings for {len(tokens)} tokens")


def resident() -> float:
    """Memory of this process and those it has started, in MiB."""
    import psutil

    me = psutil.Process()
    found = [me, *me.children(recursive=True)]
    return sum(process.memory_info().rss for process in found) / 2**20


async def watch(end: float, tally: Tally) -> None:
    while time.monotonic() < end:
        await asyncio.sleep(min(1.0, max(0.05, end - time.monotonic())))
        tally.memory.append(resident())


async def settled(engine: Any) -> list[dict[str, Any]]:
    """What the workers know once they have heard of every end."""
    for _ in range(100):
        states = await engine.collective_rpc("affectlens_state")
        if not any(state["requests"] or state["slots_in_use"] for state in states):
            break
        await asyncio.sleep(0.1)
    return states


def grown(memory: Sequence[float]) -> float:
    """Growth after the first third: the mean of the last tenth against that of the tenth there."""
    tenth = max(1, len(memory) // 10)
    third = len(memory) // 3
    early, late = memory[third : third + tenth], memory[-tenth:]
    return sum(late) / len(late) - sum(early) / len(early)


async def run(given: Any, model: str, pack_path: Path) -> list[str]:
    """What was wrong."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    from affectlens.steering.pack import SteeringPack

    pack = SteeringPack.load(pack_path)
    vocab = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=model, dtype="float32", max_model_len=256, max_num_seqs=given.running,
            max_num_batched_tokens=max(128, given.running), block_size=32,
            num_gpu_blocks_override=2 * given.running, enforce_eager=not given.compiled,
            additional_config={"affectlens": {"packs": str(pack_path)}},
        )
    )  # fmt: skip
    tally = Tally()
    try:
        pool: list[tuple[Asked, list[int]]] = []
        for i, asked in enumerate(make_pool(given, given.pool, vocab, pack)):
            wanted = await alone(engine, asked, f"alone-{i}")
            if wanted is not None:
                pool.append((asked, wanted))
        start = time.monotonic()
        end = start + 60 * given.minutes
        clients = [client(engine, i, pool, end, tally, given.seed) for i in range(given.requests)]
        await asyncio.gather(watch(end, tally), *clients)
        seconds = time.monotonic() - start
        states = await settled(engine)
        # What was cached under stress is still right, and the engine still answers.
        for i, (asked, wanted) in enumerate(pool[:10]):
            if await alone(engine, asked, f"after-{i}") not in (wanted, None):
                tally.wrong.append(f"{asked} is answered otherwise afterwards")
    finally:
        engine.shutdown()
    print(
        f"{given.requests} clients for {seconds:.0f} s over {len(pool)} requests: {tally.finished} "
        f"finished ({tally.read} read), {tally.cancelled} cancelled, {tally.tokens} tokens; "
        f"memory grew by {grown(tally.memory):.0f} MiB to {tally.memory[-1]:.0f} MiB."
    )
    wrong = [*tally.wrong[:10]]
    if len(pool) < given.pool / 2:
        wrong.append(f"Only {len(pool)} of {given.pool} requests could be used.")
    if not (tally.finished and tally.cancelled):
        wrong.append("Too short: nothing was finished, or nothing cancelled.")
    wrong += [f"left behind: {s}" for s in states if s["requests"] or s["slots_in_use"]]
    if grown(tally.memory) > SLACK_MIB:
        some = [round(mib) for mib in tally.memory[:: len(tally.memory) // 20 or 1]]
        wrong.append(f"Memory grew by {grown(tally.memory):.0f} MiB: {some}.")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=200, help="under way at any time")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--running", type=int, default=32, help="most that run at once")
    parser.add_argument("--pool", type=int, default=120, help="different requests")
    parser.add_argument("--model", help="folder; default: the default model")
    parser.add_argument("--pack", type=Path, help="of that model; default: random vectors")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ |= ENVIRONMENT
    with tempfile.TemporaryDirectory() as folder:
        model, pack = given.model, given.pack
        if model is None:
            from affectlens.models import pull

            model = str(pull("smollm2-135m-instruct"))
        if pack is None:
            pack = Path(folder) / "pack.safetensors"
            make_pack(model, pack)
        wrong = asyncio.run(run(given, model, pack))
    for line in wrong:
        print(line, file=sys.stderr)
    print("WRONG" if wrong else "All as it should be.")
    return bool(wrong)


def make_pack(model: str, path: Path) -> None:
    """Random vectors in both modes, strong enough to change replies, and a probe."""
    import torch

    from affectlens.core import EMOTIONS, Provenance
    from affectlens.models.fingerprint import checkpoint_fingerprint
    from affectlens.steering.gates import Readout
    from affectlens.steering.pack import SteeringPack

    config = json.loads((Path(model) / "config.json").read_text())
    n, d = config["num_hidden_layers"], config["hidden_size"]
    names = ("residual.resid_post", "circuit.o_proj_out", "circuit.down_proj_out")
    doses = {mode: dict.fromkeys(EMOTIONS, 1.0) for mode in ("residual", "circuit")}
    SteeringPack(
        tuple(EMOTIONS), {name: torch.randn(len(EMOTIONS), n, d) * 0.1 for name in names},
        {name: tuple(range(n)) for name in names}, n, d, doses, dict.fromkeys(doses, "generated"),
        readout=Readout(
            (*EMOTIONS, "neutral"), (n // 2,), torch.randn(1, 7, d) * 0.01, torch.zeros(1, 7)
        ),
        provenance=Provenance("pack", model=checkpoint_fingerprint(Path(model))),
    ).save(path)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
