"""Blocks of the prefix cache: shared if and only if they hold the same keys and values."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest

from affectlens.serving.request_fields import BY_TOKEN, Asked
from affectlens.serving.vllm.prefix_cache import block_key
from affectlens.steering.spec import POSITIONS
from tests.steering.oracle import steered_at

SIZE, TOKENS = 4, 32


def chain(specs: tuple[str, str], prompt: int, beam: int | None) -> list[tuple[object, ...]]:
    """What identifies each block of a text: its key and all before it."""
    name, positions = specs
    asked = Asked("p", f"{name}=1;mode=circuit;positions={positions}", False, name, positions, beam)
    request = SimpleNamespace(
        num_prompt_tokens=prompt, sampling_params=SimpleNamespace(extra_args=asked.to_extra_args())
    )
    ends = range(SIZE, TOKENS + 1, SIZE)
    return list(itertools.accumulate((block_key(request, end),) for end in ends))


def contents(specs: tuple[str, str], prompt: int) -> list[tuple[object, ...]]:
    """What decides the keys and values of each block: who steered every token up to its end."""
    name, positions = specs
    marks = [
        (name, max(i - prompt, -1) if name.endswith(BY_TOKEN) else 0)
        if steered_at(positions, i, prompt)
        else None
        for i in range(TOKENS)
    ]
    return [tuple(marks[:end]) for end in range(SIZE, TOKENS + 1, SIZE)]


def test_the_same_block_means_the_same_steering_before_its_end() -> None:
    chance = random.Random(0)
    shared = different = 0
    for _ in range(6000):
        texts = []
        for _ in range(2):
            specs = chance.choice(("anger", "fear", f"fear{BY_TOKEN}")), chance.choice(POSITIONS)
            prompt = chance.randint(1, TOKENS)
            beam = chance.choice((None, prompt))
            seen = prompt if beam is None else chance.randint(prompt, TOKENS)
            texts.append((chain(specs, seen, beam), contents(specs, prompt)))
        (first, first_holds), (second, second_holds) = texts
        for i in range(len(first)):
            if first[i] == second[i]:
                assert first_holds[i] == second_holds[i]
                shared += 1
            else:
                different += 1
    assert min(shared, different) > 1000


@pytest.mark.parametrize("positions", POSITIONS)
def test_equal_requests_share_all_blocks(positions: str) -> None:
    assert chain(("anger", positions), 11, None) == chain(("anger", positions), 11, None)


def test_prompts_stay_shared_if_only_what_follows_is_steered() -> None:
    plain = [(None,) * n for n in range(1, TOKENS // SIZE + 1)]
    steered = chain(("anger", "generated"), 20, None)
    assert steered[: 20 // SIZE] == plain[: 20 // SIZE]
    assert steered[20 // SIZE] != plain[20 // SIZE]


def test_longer_prompts_share_the_blocks_of_shorter_ones_steered_alike() -> None:
    short, long = chain(("fear", "prompt"), 16, None), chain(("fear", "prompt"), 28, None)
    assert short[: 16 // SIZE] == long[: 16 // SIZE]
    assert short[16 // SIZE] != long[16 // SIZE]
