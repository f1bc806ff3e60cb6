"""Chunks, preemption, several replies per prompt, chats, cancellations."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests_vllm.cases import NEW, Case
from tests_vllm.engines import (
    BLOCK,
    SETTINGS,
    Answer,
    ask,
    of_case,
    raw,
    request,
    start,
    state,
)
from tests_vllm.test_parity import require_equal


def test_chunks_of_prompts(eager: Any, cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps hold at most 48 tokens: prompts come in pieces, with tokens of others beside them."""
    from vllm.v1.core.sched.scheduler import Scheduler

    steps: list[dict[str, int]] = []
    schedule = Scheduler.schedule

    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = schedule(self, *args, **kwargs)
        steps.append(dict(output.num_scheduled_tokens))
        return output

    monkeypatch.setattr(Scheduler, "schedule", noting)
    eager.reset_prefix_cache()
    require_equal(ask(eager, [of_case(case) for case in cases]), cases)
    longest = {name: max(step.get(name, 0) for step in steps) for step in steps for name in step}
    pieces = {name: sum(step.get(name, 0) > 1 for step in steps) for name in longest}
    assert max(sum(step.values()) for step in steps) <= 48
    assert sum(count > 1 for count in pieces.values()) >= 10
    assert any(len(step) > 1 and 1 in step.values() and max(step.values()) > 1 for step in steps)


def test_preemption(own_caches: Path, cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values fit for a few requests only; the others lose theirs and start again."""
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted: list[str] = []
    preempt = Scheduler._preempt_request

    def noting(self: Any, victim: Any, *args: Any, **kwargs: Any) -> Any:
        preempted.append(victim.request_id)
        return preempt(self, victim, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", noting)
    llm = start(settings=SETTINGS, num_gpu_blocks_override=9, enable_prefix_caching=False)
    long = [case for case in cases if len(case.prompt) > 20]
    requests = [of_case(case, read=True) for case in long]
    answers = ask(llm, requests)
    require_equal(answers, long)
    for answer, case in zip(answers, long, strict=True):
        assert answer.reading is not None and len(answer.reading["tokens"]) == len(case.tokens)
    assert preempted
    # With much longer replies, against an engine with room for all.
    more = [request(case.prompt, case.spec, 90) for case in long[:12]]
    roomy = start(settings=SETTINGS, enable_prefix_caching=False)
    before = len(preempted)
    assert [a.tokens for a in ask(llm, more)] == [a.tokens for a in ask(roomy, more)]
    assert len(preempted) >= before + 3
    assert state(llm)[0]["slots_in_use"] == 0


def test_several_replies(eager: Any, cases: list[Case]) -> None:
    """``n`` replies are requests of their own behind the scenes, and all are steered."""
    likeliest = {"temperature": 1.0, "top_k": 1, "n": 3}
    outputs = raw(eager, [{**of_case(case), **likeliest} for case in cases[:12]])
    for i in range(3):
        require_equal([Answer.of(output, i) for output in outputs], cases[:12])


def test_seeds(eager: Any, cases: list[Case]) -> None:
    """A sampled reply depends on prompt, spec and seed, not on who runs beside it."""
    # Short prompts: vLLM's CPU runner cannot seed a request whose prompt comes in pieces.
    drawn = [
        {**request([9, 8, 7 + i], case.spec), "temperature": 1.0, "seed": i, "n": 2}
        for i, case in enumerate(cases[2:9])
    ]
    together = raw(eager, drawn)
    alone = [raw(eager, [one])[0] for one in drawn]
    for i in range(2):
        assert [Answer.of(o, i).tokens for o in together] == [Answer.of(o, i).tokens for o in alone]
    first, second = (Answer.of(together[0], i).tokens for i in range(2))
    assert first != second
    unsteered = raw(eager, [{**one, "extra_args": None} for one in drawn])
    assert Answer.of(unsteered[0]).tokens != first


def test_chat(eager: Any, cases: list[Case]) -> None:
    from vllm import SamplingParams

    talk = [{"role": "user", "content": "We won the match, and I am so angry about it."}]
    specs = [case.spec for case in cases[:14]]
    params = [
        SamplingParams(
            temperature=0.0, max_tokens=NEW, min_tokens=NEW,
            extra_args=None if spec is None else {"affectlens": spec},
        )
        for spec in specs
    ]  # fmt: skip
    found = eager.chat([talk] * len(specs), params, use_tqdm=False)
    prompt = list(found[0].prompt_token_ids)
    assert len(prompt) > 10
    wanted = ask(eager, [request(prompt, spec) for spec in specs])
    assert [Answer.of(output).tokens for output in found] == [one.tokens for one in wanted]
    assert len({tuple(one.tokens) for one in wanted}) > 8


def test_random_arrivals_and_cancellations(eager: Any, cases: list[Case]) -> None:
    """Requests that come while others run, some cancelled: the rest are as ever, none is left."""
    from vllm import SamplingParams

    chance = random.Random(3)
    engine = eager.llm_engine
    waiting = [(f"r{i}", case) for i, case in enumerate(cases * 2)]
    chance.shuffle(waiting)
    running: dict[str, Case] = {}
    replies: dict[str, Any] = {}
    cancelled = 0
    while waiting or engine.has_unfinished_requests():
        while waiting and chance.random() < 0.6:
            name, case = waiting.pop()
            options = {k: v for k, v in of_case(case).items() if k != "prompt"}
            prompt = {"prompt_token_ids": list(case.prompt)}
            engine.add_request(name, prompt, SamplingParams(**options))
            running[name] = case
        if running and chance.random() < 0.15:
            name = chance.choice(sorted(running))
            engine.abort_request([name])
            running.pop(name)
            cancelled += 1
        for output in engine.step():
            if output.finished and output.request_id in running:
                replies[output.request_id] = (output, running.pop(output.request_id))
    assert cancelled > 5 and len(replies) + cancelled == 2 * len(cases)
    require_equal(
        [Answer.of(output) for output, _ in replies.values()],
        [case for _, case in replies.values()],
    )
    (found,) = state(eager)
    assert (found["requests"], found["slots_in_use"]) == (0, 0)


def test_prompts_of_any_length(eager: Any) -> None:
    """Down to one token, and exactly up to the ends of blocks and steps."""
    specs = ("fear=2;positions=all", "fear=2;positions=prompt", "fear=2;positions=generated", None)
    lengths = (1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 47, 48, 49, 2 * BLOCK, 3 * BLOCK)
    chance = random.Random(5)
    prompts = [[chance.randrange(5, 200) for _ in range(n)] for n in lengths]
    requests = [request(prompt, spec) for prompt in prompts for spec in specs]
    together = ask(eager, requests)
    eager.reset_prefix_cache()
    for one, answer in zip(requests, together, strict=True):
        eager.reset_prefix_cache()
        assert ask(eager, [one])[0].tokens == answer.tokens
