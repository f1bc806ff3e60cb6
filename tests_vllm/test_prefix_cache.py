"""The prefix cache: who shares blocks with whom, and that nothing but the speed depends on it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests_vllm.engines import BLOCK, SETTINGS, Answer, ask, request, start

SPECS = (
    None,
    "none",
    "anger=1;positions=all",
    "anger=1.0;positions=all",  # the same in other words
    "anger=1.01;positions=all",
    "anger=1;positions=prompt",
    "anger=1;positions=generated",
    "anger=1;positions=last_prompt+generated",
    "anger=1;mode=circuit;positions=all",
    "anger=1;operator=project_out;positions=all",
    "anger=1;operator=clamp;positions=all",
    "anger=1;operator=add_keep_norm;positions=all",
    "anger=1;unit=natural;positions=all",
    "anger=1;gate=fear>0.12;positions=all",
    "anger=1;gate=fear<0.12;positions=all",
    "fear=1;positions=generated",
    "anger=1;positions=generated;schedule=rise:5",
    "anger=1;positions=all;schedule=0:0.5,8:1",
)
LENGTH = 3 * BLOCK - 6


def prompt_of(seed: int, length: int = LENGTH) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(5, 200) for _ in range(length)]


@pytest.fixture(scope="module")
def uncached(own_caches: Path) -> Any:
    return start(settings=SETTINGS, enable_prefix_caching=False)


def require_same(found: Sequence[Answer], wanted: Sequence[Answer]) -> None:
    for i, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.tokens == other.tokens, i
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3), i


def test_many_specs_on_one_prompt(eager: Any, uncached: Any) -> None:
    requests = [request(prompt_of(1), spec) for spec in SPECS]
    wanted = ask(uncached, requests)
    assert not any(answer.cached for answer in wanted)
    assert len({tuple(answer.tokens) for answer in wanted}) > 8
    chance = random.Random(0)
    eager.reset_prefix_cache()
    for _ in range(4):
        order = list(range(len(SPECS)))
        chance.shuffle(order)
        answers = ask(eager, [requests[i] for i in order])
        require_same(answers, [wanted[i] for i in order])
    # By now all that may be shared is: two full blocks.
    assert [answer.cached for answer in answers] == [2 * BLOCK] * len(SPECS)


@pytest.mark.parametrize("first", [None, *SPECS[2::3]])
def test_only_equal_blocks_are_shared(eager: Any, first: str | None) -> None:
    """After one request, who finds its blocks? Those whose prompt is computed like its own."""
    prompt = prompt_of(2)
    for second in SPECS:
        eager.reset_prefix_cache()
        ask(eager, [request(prompt, first)])
        (answer,) = ask(eager, [request(prompt, second)])
        assert answer.cached == (2 * BLOCK if prompt_class(first) == prompt_class(second) else 0), (
            second
        )


def prompt_class(spec: str | None) -> str:
    """Equal for specs that leave the same keys and values of the prompt's full blocks."""
    if spec in (None, "none") or "generated" in str(spec):
        return ""
    return str(spec).replace("1.0;", "1;").replace("positions=all", "positions=prompt")


def test_next_turns(eager: Any, uncached: Any) -> None:
    """What was generated becomes prompt: steered then, and by most specs not steered now."""
    chance = random.Random(4)
    for spec in SPECS:
        eager.reset_prefix_cache()
        text = prompt_of(3, length=40)
        for turn in range(3):
            asked = request(text, spec, 40)
            (found,), (wanted,) = ask(eager, [asked]), ask(uncached, [asked])
            require_same([found], [wanted])
            # The next turn keeps some of the reply, at and off the ends of blocks.
            kept = chance.choice([40, 33, 24, 10])
            text = [*text, *found.tokens[:kept], *prompt_of(10 + turn, 3)]


def test_the_same_tokens_as_prompt_and_as_reply(eager: Any, uncached: Any) -> None:
    """A block that one request generated under steering is no prompt of another."""
    base = prompt_of(5, length=40)
    for spec in (
        "anger=1.5;positions=generated",
        "anger=1.5;positions=prompt",
        "anger=1.5;positions=all",
        "anger=1.5;positions=all;schedule=0:0.2,20:1",
    ):
        eager.reset_prefix_cache()
        (first,) = ask(eager, [request(base, spec, 60)])
        for kept in (50, 40, 24, 10):
            asked = request([*base, *first.tokens[:kept]], spec)
            require_same(ask(eager, [asked]), ask(uncached, [asked]))


def test_random_prompts_with_common_beginnings(eager: Any, uncached: Any) -> None:
    chance = random.Random(6)
    roots = [prompt_of(20 + i, length=100) for i in range(3)]
    requests = [
        request(
            chance.choice(roots)[: chance.choice([33, 50, 64, 65, 96, 100])],
            chance.choice(SPECS),
            chance.choice([3, 8, 30]),
        )
        for _ in range(120)
    ]
    eager.reset_prefix_cache()
    answers = ask(eager, requests)
    require_same(answers, ask(uncached, requests))
    assert sum(answer.cached > 0 for answer in answers) > 40


def test_another_pack_shares_nothing(own_caches: Path) -> None:
    """The same words mean something else with another pack; a changed first pack is another one."""
    from tests_vllm.cases import FOLDER

    packs = {"tiny": str(FOLDER / "tiny.safetensors"), "second": str(FOLDER / "second.safetensors")}
    llm = start(settings={"packs": packs, "max_packs": 2})
    prompt, spec = prompt_of(7), "anger=1;positions=all"
    of_second = request(prompt, spec, extra_args={"affectlens_pack": "second"})
    (first,) = ask(llm, [request(prompt, spec)])
    (second,) = ask(llm, [of_second])
    assert second.cached == 0 and second.tokens != first.tokens
    mixed = ask(llm, [request(prompt, spec), of_second] * 4)
    assert [answer.tokens for answer in mixed] == [first.tokens, second.tokens] * 4
    assert all(answer.cached == 2 * BLOCK for answer in mixed)
