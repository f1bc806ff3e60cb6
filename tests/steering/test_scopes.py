"""Who is inside a block: threads, tasks, pools; and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch._dynamo import eval_frame

from affectlens.core import Site
from affectlens.core.places import WritePoint
from affectlens.models.hooking.hooks import reading, writing
from affectlens.models.loading import LanguageModel
from affectlens.steering.pack import SteeringPack
from tests.conftest import make_tiny
from tests.steering.oracle import random_pack
from tests.steering.test_steering import count_hooks, spec

NEW = 8
PROMPT = [5, 17, 33, 90, 12, 61]
ANGER, FEAR = (spec("residual", "generated", **{name: 2.0}) for name in ("anger", "fear"))
START, SUBMIT = threading.Thread.start, ThreadPoolExecutor.submit


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return make_tiny("llama")


@pytest.fixture(scope="module")
def pack(model: LanguageModel) -> SteeringPack:
    return random_pack(model)


@pytest.fixture(autouse=True)
def _nothing_stays_behind(model: LanguageModel) -> Any:
    hooks = count_hooks(model)
    yield
    assert count_hooks(model) == hooks
    assert "generate" not in vars(model.hf)
    assert threading.Thread.start is START
    assert ThreadPoolExecutor.submit is SUBMIT
    assert eval_frame._stance.stance == "default"  # pyright: ignore[reportPrivateUsage]


def options(**more: Any) -> dict[str, Any]:
    ids = torch.tensor([PROMPT])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": NEW,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
        **more,
    }


def say(model: LanguageModel) -> list[int]:
    hf: Any = model.hf
    return hf.generate(**options())[0].tolist()


def texts(model: LanguageModel, pack: SteeringPack) -> tuple[list[int], list[int], list[int]]:
    plain = say(model)
    with pack.steer(model, ANGER):
        angry = say(model)
    with pack.steer(model, FEAR):
        afraid = say(model)
    assert plain != angry != afraid != plain
    return plain, angry, afraid


def in_thread(work: Any) -> Any:
    got: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: got.update(value=work()))
    thread.start()
    thread.join()
    return got["value"]


def test_a_thread_that_asked_for_nothing(model: LanguageModel, pack: SteeringPack) -> None:
    plain, *_ = texts(model, pack)
    reply = model.generate("My train was late.", max_new_tokens=NEW)
    logits = model.hf(torch.tensor([PROMPT])).logits
    early = ThreadPoolExecutor(1)
    early.submit(int).result()
    with pack.steer(model, spec("residual", "all", anger=2.0)), early:
        assert in_thread(lambda: say(model)) == plain
        assert in_thread(lambda: model.generate("My train was late.", max_new_tokens=NEW)) == reply
        assert torch.equal(in_thread(lambda: model.hf(torch.tensor([PROMPT])).logits), logits)
        assert early.submit(lambda: say(model)).result() == plain


def test_two_blocks_in_two_threads_at_once(model: LanguageModel, pack: SteeringPack) -> None:
    """Both are open while both generate, and pass by pass in turn; and an outsider meanwhile."""
    plain, angry, afraid = texts(model, pack)
    together = threading.Barrier(3, timeout=600)
    got: dict[str, Any] = {}

    class InTurn:
        def __call__(self, ids: Any, scores: Any) -> Any:
            together.wait()
            return scores

    def work(name: str, request: Any) -> None:
        from transformers import LogitsProcessorList

        with pack.steer(model, request):
            together.wait()
            processors = LogitsProcessorList([InTurn()])  # type: ignore[list-item]
            hf: Any = model.hf
            out = hf.generate(**options(logits_processor=processors))
            got[name] = out[0].tolist()
            together.wait()

    threads = [
        threading.Thread(target=work, args=pair)
        for pair in (("anger", ANGER), ("fear", FEAR), ("none", "anger=0"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {"anger": angry, "fear": afraid, "none": plain}


@pytest.mark.parametrize("wrap", [lambda generate: generate, partial])
def test_a_streaming_thread_is_steered_to_its_end(
    model: LanguageModel, pack: SteeringPack, wrap: Any
) -> None:
    """The block is left after the first token."""
    _, angry, _ = texts(model, pack)
    left, seen = threading.Event(), list[int]()

    class Streamer:
        def put(self, value: Any) -> None:
            seen.extend(value.flatten().tolist())
            if len(seen) > len(PROMPT):
                assert left.wait(60)

        def end(self) -> None: ...

    with pack.steer(model, ANGER):
        thread = threading.Thread(
            target=wrap(model.hf.generate), kwargs=options(streamer=Streamer())
        )
        thread.start()
    left.set()
    thread.join()
    assert seen == angry


@pytest.mark.parametrize("door", ["language model", "pipeline"])
def test_a_pool_that_is_given_the_model(
    model: LanguageModel, pack: SteeringPack, door: str
) -> None:
    from transformers import pipeline

    plain, *_ = texts(model, pack)
    left, passes = threading.Event(), list[int]()

    def hold(*_: Any) -> None:
        passes.append(1)
        if len(passes) > 1:
            assert left.wait(60)

    if door == "pipeline":
        tokenizer: Any = model.tokenizer
        target: Any = pipeline("text-generation", model=model.hf, tokenizer=tokenizer)
        rest: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    else:
        target, rest = model.generate, {"max_new_tokens": NEW}
    with pack.steer(model, ANGER):
        wanted = target("The train was late.", **rest)
    assert wanted != target("The train was late.", **rest)
    handle = model.hf.register_forward_hook(hold)
    try:
        with ThreadPoolExecutor(1) as pool:
            with pack.steer(model, ANGER):
                future = pool.submit(target, "The train was late.", **rest)
            left.set()
            assert future.result() == wanted
            assert pool.submit(say, model).result() == plain  # the same worker, for somebody else
    finally:
        handle.remove()


def test_tasks_follow_their_context(model: LanguageModel, pack: SteeringPack) -> None:
    plain, angry, afraid = texts(model, pack)

    async def within(request: Any, entered: asyncio.Event, go: asyncio.Event) -> Any:
        with pack.steer(model, request):
            entered.set()
            await go.wait()
            here = say(model)
            there = await asyncio.to_thread(say, model)
        return here, there, say(model)

    async def outside() -> Any:
        return say(model)

    async def main() -> None:
        entered, go = [asyncio.Event(), asyncio.Event()], asyncio.Event()
        pair = zip((ANGER, FEAR), entered, strict=True)
        tasks = [asyncio.create_task(within(request, event, go)) for request, event in pair]
        for event in entered:
            await event.wait()
        assert await asyncio.create_task(outside()) == plain
        go.set()
        assert await asyncio.gather(*tasks) == [(angry, angry, plain), (afraid, afraid, plain)]
        with pack.steer(model, ANGER):
            late = asyncio.create_task(outside())  # begins when the block is left
        assert await late == angry
        assert say(model) == plain
        del late

    asyncio.run(main())


def test_a_context_of_ones_own_carries_the_block(model: LanguageModel, pack: SteeringPack) -> None:
    plain, angry, _ = texts(model, pack)
    with pack.steer(model, ANGER):
        context = contextvars.copy_context()
    assert say(model) == plain
    assert count_hooks(model) > 0  # somebody may still come in
    assert context.run(say, model) == angry
    assert in_thread(lambda: context.run(say, model)) == angry  # noqa: F821 (deleted below)
    del context
    assert count_hooks(model) == 0


def test_blocks_left_in_another_order_or_place(model: LanguageModel, pack: SteeringPack) -> None:
    plain, angry, afraid = texts(model, pack)
    one, two = pack.steer(model, ANGER), pack.steer(model, FEAR)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert say(model) == afraid
    two.__exit__(None, None, None)
    assert say(model) == plain
    block = pack.steer(model, ANGER)
    block.__enter__()
    assert say(model) == angry
    in_thread(lambda: block.__exit__(None, None, None))  # as some web frameworks do it
    assert say(model) == plain
    # Contexts that still know of it hold nothing but its name.


def test_readers_and_writers_see_their_own_passes(model: LanguageModel) -> None:
    """Not those of another thread, which is not stopped half-way either; nor those of a copy."""
    import copy

    sites = [Site(0, "resid_post"), Site(1, "pattern")]
    ids = torch.tensor([PROMPT])
    plain = model.hf(ids).logits
    seen = list[Any]()

    def double(hidden: torch.Tensor) -> torch.Tensor:
        return 2 * hidden

    with (
        writing(model.anatomy, {WritePoint(0, "resid_post"): double}),
        reading(model.anatomy, sites, lambda site, _: seen.append(site), stop_after=sites[1]),
    ):
        assert torch.equal(in_thread(lambda: model.hf(ids).logits), plain)
        assert torch.equal(copy.deepcopy(model.hf)(ids).logits, plain)
        assert not seen
        model.hf(ids)
    assert seen == sites
    with writing(model.anatomy, {WritePoint(0, "resid_post"): double}):
        assert not torch.allclose(model.hf(ids).logits, plain)


def test_two_captures_at_once_do_not_mix(model: LanguageModel) -> None:
    from affectlens.activations import capture
    from affectlens.datasets import Corpus, Message, Record

    def corpus(name: str, text: str) -> Corpus:
        records = [
            Record(
                id=f"{name}{i}",
                messages=(Message("text", f"{text} {i}"),),
                emotion="anger",
                valence=None,
                group=f"{name}{i}",
                theme="t",
                split="fit",
            )
            for i in range(6)
        ]
        return Corpus(name, "texts", tuple(records))

    corpora = [corpus("a", "The train"), corpus("b", "What a lovely surprise, thank you")]

    def run(one: Corpus) -> torch.Tensor:
        store = capture(model, one, sites="resid_post@1", max_tokens_per_batch=64)
        return store.to_torch(store.sites[0])

    alone = [run(one) for one in corpora]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for got, wanted in zip(pool.map(run, corpora), alone, strict=True):
                assert torch.equal(got, wanted)
