"""Tokens per second of our generation loop and of ``hf.generate``, steered and not.

Run it on a quiet machine: ``OMP_NUM_THREADS=2 python benchmarks/generation.py 32 128 360``.
Columns: wall-clock tokens per second. "shared" gives every prompt to six rows, as a comparison of
six emotions does; "distinct" does not.

``python benchmarks/generation.py overhead``: what steering adds to 16 rows of 64 tokens, at all
layers, each row with another request; plain and steered in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from affectlens.core import EMOTIONS, Provenance
from affectlens.models import load_model
from affectlens.models.generation.generation import GenerationSettings, encode_prompt, generate_ids
from affectlens.steering import SteeringPack, generate_steered

NEW = 40
WORDS = ("train", "meeting", "friend", "letter", "dog", "kitchen", "flight", "rain", "money")


def prompts(model: Any, n: int) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(0)
    rows: list[tuple[int, ...]] = []
    for _ in range(n):
        length = int(torch.randint(8, 25, (1,), generator=generator))
        words = torch.randint(0, len(WORDS), (length,), generator=generator).tolist()
        rows.append(encode_prompt(model, " ".join(WORDS[i] for i in words)))
    return rows


def pack(model: Any, layers: tuple[int, ...]) -> SteeringPack:
    """Vectors small enough to leave the text alone; the work is the same as with real ones."""
    vectors = torch.randn(len(EMOTIONS), len(layers), model.d_model) * 1e-3
    return SteeringPack(
        EMOTIONS,
        {"residual.resid_post": vectors},
        {"residual.resid_post": layers},
        model.n_layers,
        model.d_model,
        {"residual": dict.fromkeys(EMOTIONS, 1.0)},
        {"residual": "last_prompt+generated"},
        provenance=Provenance("pack", model=model.fingerprint),
    )


def hf_generate(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    ids, mask = model.encode_batch(rows, "left")
    out = model.hf.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
        repetition_penalty=1.1,
        pad_token_id=model.pad_id,
        eos_token_id=list(model.eos_ids),
    )
    return out[:, -NEW:].tolist()


def speed(run: Callable[[], Sequence[Sequence[int]]]) -> float:
    start = time.perf_counter()
    tokens = sum(len(row) for row in run())
    return tokens / (time.perf_counter() - start)


def overhead(model: Any, rounds: int = 9) -> None:
    """The time of a steered batch beside that of a plain one, in turn."""
    steer, settings = (
        pack(model, tuple(range(model.n_layers))),
        GenerationSettings(64, min_new_tokens=64),
    )
    rows = prompts(model, 16)
    specs = [f"{EMOTIONS[i % 6]}={0.5 + i / 16}" for i in range(len(rows))]
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        generate_ids(model, rows, settings)
        between = time.perf_counter()
        generate_steered(model, steer, rows, specs, settings)
        times.append((between - begun, time.perf_counter() - between))
    plain, steered = (statistics.median(column) for column in zip(*times[1:], strict=True))
    ratio = statistics.median(b / a for a, b in times[1:])
    print(f"16 rows x 64 tokens: plain {plain:.2f} s, steered {steered:.2f} s, ratio {ratio:.3f}")


def main() -> None:
    model = load_model("smollm2-135m-instruct")
    if sys.argv[1:] == ["overhead"]:
        overhead(model)
        return
    steer = pack(model, tuple(range(model.n_layers // 3, 2 * model.n_layers // 3)))
    settings = GenerationSettings(NEW, min_new_tokens=NEW)
    generate_ids(model, prompts(model, 4), settings)
    print(f"{'rows':>5} {'shared':>8} {'steered':>8} {'distinct':>9} {'hf':>6}  tokens/s")
    for n in [int(a) for a in sys.argv[1:]] or [32, 128, 360]:
        distinct = prompts(model, n)
        shared = [row for row in distinct[: max(1, n // 6)] for _ in EMOTIONS]
        specs = [f"{EMOTIONS[i % 6]}=1" for i in range(len(shared))]
        figures = [
            speed(lambda x=shared: generate_ids(model, x, settings)),
            speed(lambda x=shared, s=specs: generate_steered(model, steer, x, s, settings)),
            speed(lambda x=distinct: generate_ids(model, x, settings)),
            speed(lambda x=distinct: hf_generate(model, x)),
        ]
        print(f"{n:>5} {figures[0]:8.0f} {figures[1]:8.0f} {figures[2]:9.0f} {figures[3]:6.0f}")


if __name__ == "__main__":
    main()
