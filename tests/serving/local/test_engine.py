"""Rows that share passes against each of them alone, through `generate` and `pack.steer`."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from affectlens.core import DataError, MismatchError, ModelError
from affectlens.models import LanguageModel
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.models.generation.generation import generate_ids
from affectlens.serving.local import (
    prefill,
    prefix_store,
    running_cache,
    scheduler,
    steered_passes,
)
from affectlens.serving.local.engine import Engine, Ticket
from affectlens.serving.local.generation import Failed, Generation, Piece, Steered
from affectlens.serving.local.limits import Busy, EngineLimits
from affectlens.steering import SteeringPack
from affectlens.steering.spec import SteeringSpec
from tests.conftest import FAMILIES
from tests.serving.local.conftest import reading_pack
from tests.steering.test_low_rank import low_rank_pack

SPECS = (
    None,
    "anger=1",
    "fear=2;mode=circuit;positions=all",
    "anger=0.5,happiness=-1;positions=prompt",
    "fear=0.7;mode=residual;operator=project_out",
    "anger=1;operator=add_keep_norm;unit=natural",
    "happiness=1.5;mode=residual;gate=anger>0.25",
    "fear=1;mode=circuit;gate=happiness<0.3",
    "anger=2;schedule=rise:4",
    "fear=2;mode=circuit;positions=all;schedule=0:1,3:0.25,6:0.5",
    "anger=2;operator=add_keep_norm;unit=natural;schedule=fall:5",
    "happiness=2;mode=residual;gate=anger>0.25;positions=all;schedule=0:0.5,5:1",
)


@dataclass
class Heard:
    """Collects what is said of one reply."""

    pieces: list[Piece] = field(default_factory=list)
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)

    def __call__(self, event: Piece | Failed) -> None:
        if isinstance(event, Failed):
            self.error = event.error
            self.ended.set()
            return
        self.pieces.append(event)
        self.begun.set()
        if event.finish:
            self.ended.set()

    def tokens(self) -> tuple[int, ...]:
        """Without the one that ended the reply."""
        assert self.ended.wait(60) and self.error is None, self.error
        ids = [piece.token.id for piece in self.pieces]
        ended_itself = self.pieces[-1].finish == "stop"
        return tuple(ids[:-1] if ended_itself else ids)


def prompts_of(model: LanguageModel, count: int, seed: int) -> list[tuple[int, ...]]:
    """Some share their beginnings, some are long, some short."""
    rng = random.Random(seed)
    common = tuple(rng.randrange(5, 190) for _ in range(24))
    found = []
    for i in range(count):
        own = tuple(rng.randrange(5, 190) for _ in range(rng.choice((1, 3, 9, 40))))
        found.append(common + own if i % 3 else own)
    return found


def alone(model: LanguageModel, asked: Generation) -> tuple[int, ...]:
    """The reply without any server."""
    from contextlib import nullcontext

    steered = asked.steered
    block: Any = nullcontext() if steered is None else steered.pack.steer(model, steered.spec)
    with block:
        return generate_ids(model, [asked.prompt], asked.settings)[0]


def steered_by(pack: Any, spec: str | None, *, read: bool = False) -> Steered | None:
    resolved = pack.resolve(spec)
    return Steered("pack", pack, resolved, read) if resolved or read else None


def asked_for(
    engine: Engine, wanted: Sequence[Generation], *, staggered: bool = True
) -> list[Heard]:
    """Everybody at once, or each as soon as the one before has begun."""
    heard = [Heard() for _ in wanted]
    if not staggered:
        engine.submit(list(zip(wanted, heard, strict=True)))
        return heard
    for one, listener in zip(wanted, heard, strict=True):
        engine.submit([(one, listener)])
        listener.begun.wait(0.05)
    return heard


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("staggered", [True, False])
def test_nobody_changes_anybodys_text(tiny_model: Any, family: str, staggered: bool) -> None:
    model = tiny_model(family)
    packs = [reading_pack(model, seed) for seed in (0, 1)]
    wanted = []
    for i, prompt in enumerate(prompts_of(model, 24, seed=len(family))):
        sampled = i % 4 == 1
        settings = GenerationSettings(
            max_new_tokens=5 + (7 * i) % 23,
            temperature=0.8 if sampled else 0.0,
            top_p=0.9 if i % 8 == 1 else 1.0,
            repetition_penalty=1.1 if i % 2 else 1.0,
            seed=1000 + i,
        )
        steered = steered_by(packs[i % 5 == 2], SPECS[i % len(SPECS)], read=i % 7 == 3)
        wanted.append(Generation(prompt, settings, steered))
    with Engine(model, EngineLimits(rows=5, waiting=40)) as engine:
        heard = asked_for(engine, wanted, staggered=staggered)
        found = [one.tokens() for one in heard]
        assert (
            engine.state()["steps"] < sum(len(one) for one in found)
            or not engine.state()["shares_passes"]
        )
    assert found == [alone(model, one) for one in wanted]
    assert len(set(found)) > 12


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_maps_and_directions_share_passes(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    pack = SteeringPack.merge(reading_pack(model), low_rank_pack(model))
    specs = (*SPECS[:5], "anger=1;mode=low_rank", "fear=1,happiness=-0.5;mode=low_rank")
    wanted = [
        Generation(prompt, GenerationSettings(max_new_tokens=8), steered_by(pack, specs[i % 7]))
        for i, prompt in enumerate(prompts_of(model, 14, seed=1))
    ]
    with Engine(model, EngineLimits(rows=5, waiting=40)) as engine:
        found = [one.tokens() for one in asked_for(engine, wanted)]
    assert found == [alone(model, one) for one in wanted]
    assert len(set(found)) > 6


def test_most_families_share_passes(tiny_model: Any) -> None:
    shared = [f for f in FAMILIES if Engine(tiny_model(f))._scheduler.shares]  # pyright: ignore
    assert {"llama", "qwen3", "gemma3", "mistral", "gpt2", "gpt_neox", "olmo2"} <= set(shared)


def test_rows_that_notice_each_other_are_written_one_by_one(
    tiny_model: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same texts, and the operator is told."""
    from affectlens.serving.local import scheduler

    model = tiny_model("llama")
    monkeypatch.setattr(scheduler, "rows_can_share", lambda *_: False)
    pack = reading_pack(model)
    wanted = [
        Generation(p, GenerationSettings(max_new_tokens=9), steered_by(pack, spec, read=True))
        for p, spec in zip(prompts_of(model, len(SPECS), 1), SPECS, strict=True)
    ]
    with Engine(model, EngineLimits(rows=4)) as engine:
        assert "each in passes of its own" in caplog.text
        heard = asked_for(engine, wanted)
        assert [one.tokens() for one in heard] == [alone(model, one) for one in wanted]
        assert all(piece.scores for one in heard for piece in one.pieces)


def test_readings_are_those_of_the_residual_stream(tiny_model: Any) -> None:
    """Each token's scores, against the probe on hidden states of the steered text run at once."""
    from affectlens.core import Site
    from affectlens.models.hooking.hooks import reading

    model = tiny_model("llama")
    pack = reading_pack(model)
    assert pack.readout is not None
    wanted = [
        Generation(p, GenerationSettings(max_new_tokens=12), steered_by(pack, spec, read=True))
        for p, spec in zip(prompts_of(model, 6, 3), SPECS[:6], strict=True)
    ]
    with Engine(model) as engine:
        heard = asked_for(engine, wanted)
        for asked, one in zip(wanted, heard, strict=True):
            one.tokens()
            ids = [*asked.prompt, *(piece.token.id for piece in one.pieces)]
            states: dict[int, Any] = {}
            sites = [Site(layer, "resid_post") for layer in pack.readout.layers]
            assert asked.steered is not None
            with (
                torch.inference_mode(),
                pack.steer(model, asked.steered.spec, prompt_lengths=[len(asked.prompt)]),
                reading(
                    model.anatomy, sites, lambda s, v, states=states: states.update({s.layer: v[0]})
                ),
            ):
                model.hf(input_ids=torch.tensor([ids]))
            for at, piece in enumerate(one.pieces):
                where = len(asked.prompt) - 1 + at
                for i, layer in enumerate(pack.readout.layers):
                    weights, bias = pack.readout.weights[i], pack.readout.bias[i]
                    scores = states[layer][where] @ weights.T + bias
                    assert piece.scores is not None
                    torch.testing.assert_close(
                        torch.tensor(piece.scores[i]), scores, atol=2e-3, rtol=2e-3
                    )


def test_logprobs_are_those_of_the_model(tiny_model: Any) -> None:
    model = tiny_model("qwen3")
    asked = Generation((7, 8, 9), GenerationSettings(max_new_tokens=6), logprobs=3)
    with Engine(model) as engine:
        (heard,) = asked_for(engine, [asked])
        heard.tokens()
    ids = [*asked.prompt, *(piece.token.id for piece in heard.pieces)]
    with torch.inference_mode():
        shares = model.hf(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    for at, piece in enumerate(heard.pieces):
        here = shares[len(asked.prompt) - 1 + at]
        assert piece.token.logprob == pytest.approx(float(here[piece.token.id]), abs=1e-3)
        values, likely = here.topk(3)
        assert [i for i, _ in piece.token.top] == likely.tolist()
        assert [v for _, v in piece.token.top] == pytest.approx(values.tolist(), abs=1e-3)


def test_cancelled_replies_leave_at_once_and_disturb_nobody(tiny_model: Any) -> None:
    model = tiny_model("llama")
    rng = random.Random(0)
    pack = reading_pack(model)
    wanted = [
        Generation(
            prompt,
            GenerationSettings(max_new_tokens=60),
            steered_by(pack, SPECS[i % len(SPECS)]),
            ignore_eos=True,
        )
        for i, prompt in enumerate(prompts_of(model, 30, 5))
    ]
    kept: list[tuple[Generation, Heard]] = []
    with Engine(model, EngineLimits(rows=6, waiting=64)) as engine:
        cancelled: list[tuple[Ticket, Heard]] = []
        for i, asked in enumerate(wanted):
            listener = Heard()
            (ticket,) = engine.submit([(asked, listener)])
            if i % 3:
                kept.append((asked, listener))
            else:
                cancelled.append((ticket, listener))
                if rng.random() < 0.7:
                    listener.begun.wait(0.2)
                ticket.cancel()
        for _, listener in kept:
            assert listener.ended.wait(60)
        assert sum(len(one.pieces) for _, one in cancelled) < 60 * len(cancelled) / 2
        assert engine.run(lambda: 1).result(10) == 1
        state = engine.state()
        assert (state["running"], state["waiting"], state["slots_in_use"]) == (0, 0, 0)
        assert engine.users("pack") == 0
    for asked, listener in kept:
        settings = GenerationSettings(max_new_tokens=60, min_new_tokens=60)
        twin = Generation(asked.prompt, settings, asked.steered)
        assert listener.tokens() == alone(model, twin)


def test_a_reply_that_breaks_is_told_so_and_the_others_go_on(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = reading_pack(model)
    huge = reading_pack(model, size=3e37)
    well = Generation((5, 6, 7), GenerationSettings(max_new_tokens=20), steered_by(pack, "anger=1"))
    ill = Generation(
        (5, 6, 8),
        GenerationSettings(max_new_tokens=20),
        steered_by(huge, "anger=20;unit=natural;mode=circuit"),
    )
    with Engine(model) as engine:
        first, broken, second = asked_for(engine, [well, ill, well], staggered=False)
        assert first.tokens() == second.tokens() == alone(model, well)
        assert broken.ended.wait(30)
        assert "not finite" in str(broken.error) and isinstance(broken.error, ModelError)
        (again,) = asked_for(engine, [well])
        assert again.tokens() == first.tokens()


def test_a_step_that_fails_fails_only_those_under_way(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectlens.models import step as stepping

    model = tiny_model("llama")
    asked = Generation((5, 6, 7), GenerationSettings(max_new_tokens=8), ignore_eos=True)
    real, calls = stepping.step, []

    def flaky(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return real(*given)

    with Engine(model) as engine:
        monkeypatch.setattr(stepping, "step", flaky)
        (first,) = asked_for(engine, [asked])
        assert first.ended.wait(30)
        assert "out of memory" in str(first.error)
        (second,) = asked_for(engine, [asked])
        assert len(second.tokens()) == 8


@pytest.mark.parametrize(
    ("place", "name", "spec"),
    [
        (steered_passes, "_made", "anger=1"),
        (scheduler, "Prefill", None),
        (scheduler, "plain_cache", None),
        (prefill.Prefill, "_recall", None),
        (prefix_store.PrefixStore, "put", None),
        (running_cache.RunningCache, "_grow", None),
        (running_cache.RunningCache, "leave", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nobody_is_forgotten_when_something_fails_on_the_way(
    place: Any, name: str, spec: str | None, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    pack, real, calls = reading_pack(model), getattr(place, name), list[Any]()

    def flaky(*given: Any, **options: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return real(*given, **options)

    prompt = tuple(range(5, 41))
    settings = GenerationSettings(max_new_tokens=4)
    wanted = [Generation((*prompt, 50 + i), settings, steered_by(pack, spec)) for i in range(2)]
    with Engine(model, EngineLimits(rows=2, waiting=1)) as engine:
        warm = asked_for(engine, [Generation(prompt, settings)])
        assert warm[0].ended.wait(30)
        with monkeypatch.context() as patched:
            patched.setattr(place, name, flaky)
            for one in asked_for(engine, wanted, staggered=False):
                assert one.ended.wait(30)
            engine.run(lambda: None).result(30)  # whatever was under way is dealt with
        assert calls
        assert engine.state()["running"] == engine.state()["waiting"] == engine.users("pack") == 0
        again = asked_for(engine, wanted)
        assert [one.tokens() for one in again] == [alone(model, one) for one in wanted]


def test_who_listens_no_more_frees_the_place(tiny_model: Any) -> None:
    model = tiny_model("llama")
    asked = Generation((5, 6, 7), GenerationSettings(max_new_tokens=8))

    def deaf(event: Any) -> None:
        raise OSError("gone")

    with Engine(model, EngineLimits(rows=1, waiting=1)) as engine:
        for _ in range(4):  # more than there are places
            engine.submit([(asked, deaf)])
            (heard,) = asked_for(engine, [asked])
            assert heard.tokens() == alone(model, asked)
        engine.run(lambda: None).result(30)
        assert engine.state()["running"] == engine.state()["waiting"] == 0


def test_limits_are_kept(tiny_model: Any) -> None:
    model = tiny_model("llama")
    limits = EngineLimits(rows=1, waiting=1, length=40, reply=30)

    def asked(length: int, new: int = 10) -> Generation:
        return Generation((7,) * length, GenerationSettings(max_new_tokens=new), ignore_eos=True)

    with Engine(model, limits) as engine:
        for wrong, words in (
            (asked(31), "has 31 tokens; with a reply of up to 10 this server takes 1 to 30"),
            (asked(0), "has 0 tokens"),
            (asked(5, 31), "up to 30 tokens, and 31"),
            (Generation((200,), GenerationSettings(max_new_tokens=1)), "outside the vocabulary"),
        ):
            with pytest.raises(DataError, match=words):
                engine.submit([(wrong, Heard())])
        with pytest.raises(Busy, match="try again"):
            engine.submit([(asked(5), Heard())] * 3)
        heard = asked_for(engine, [asked(5, 20), asked(6, 20)], staggered=False)
        assert [len(one.tokens()) for one in heard] == [20, 20]
    with pytest.raises(ModelError, match="being stopped"):
        engine.submit([(asked(5), Heard())])


def test_little_memory_makes_rows_wait_and_changes_no_text(tiny_model: Any) -> None:
    model = tiny_model("llama")
    per_token = 2 * model.n_layers * model.anatomy.n_kv_heads * model.anatomy.d_head * 4
    limits = EngineLimits(rows=8, cache_bytes=100 * per_token)
    wanted = [
        Generation(p, GenerationSettings(max_new_tokens=20), ignore_eos=True)
        for p in prompts_of(model, 8, 2)
    ]
    most = 0
    with Engine(model, limits) as engine:
        heard = asked_for(engine, wanted, staggered=False)
        while not all(one.ended.is_set() for one in heard):
            most = max(most, len(engine._scheduler.running))  # pyright: ignore
        found = [one.tokens() for one in heard]
    assert 1 <= most < 8
    settings = GenerationSettings(max_new_tokens=20, min_new_tokens=20)
    assert found == [alone(model, Generation(one.prompt, settings)) for one in wanted]


def test_jobs_see_the_model_as_it_is(tiny_model: Any) -> None:
    """Between two steps of steered replies, on the engine's thread."""
    model = tiny_model("llama")
    pack = reading_pack(model)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        plain = model.hf(input_ids=ids).logits
        with pack.steer(model, "anger=2;positions=all"):
            steered = model.hf(input_ids=ids).logits
    asked = Generation(
        (9, 8, 7),
        GenerationSettings(max_new_tokens=40),
        steered_by(pack, "fear=2;positions=all"),
        ignore_eos=True,
    )

    def job() -> tuple[Any, Any, str]:
        with torch.inference_mode():
            one = model.hf(input_ids=ids).logits
            with pack.steer(model, "anger=2;positions=all"):
                return one, model.hf(input_ids=ids).logits, threading.current_thread().name

    with Engine(model) as engine:
        (heard,) = asked_for(engine, [asked])
        found = [engine.run(job).result(30) for _ in range(5)]
        text = heard.tokens()
        with pytest.raises(MismatchError, match="width"):
            engine.run(lambda: _raise(MismatchError("width"))).result(30)
    for one, two, thread in found:
        torch.testing.assert_close(one, plain)
        torch.testing.assert_close(two, steered)
        assert thread == "affectlens-engine"
    twin = GenerationSettings(max_new_tokens=40, min_new_tokens=40)
    assert text == alone(model, Generation(asked.prompt, twin, asked.steered))
    with torch.inference_mode():  # and it is left as it was
        torch.testing.assert_close(model.hf(input_ids=ids).logits, plain)


def _raise(error: Exception) -> None:
    raise error


def test_more_packs_than_are_kept(tiny_model: Any) -> None:
    """Tables are made anew while others are being steered with older packs."""
    model = tiny_model("llama")
    packs = [reading_pack(model, seed) for seed in range(12)]
    wanted = [
        Generation(
            (5, 6, 7 + i),
            GenerationSettings(max_new_tokens=15),
            Steered(str(i), pack, pack.resolve("anger=1;mode=circuit;positions=all")),
        )
        for i, pack in enumerate(packs)
    ]
    with Engine(model, EngineLimits(rows=4, waiting=64)) as engine:
        heard = asked_for(engine, [*wanted, *wanted])
        found = [one.tokens() for one in heard]
    assert found == 2 * [alone(model, one) for one in wanted]


def test_an_empty_spec_is_no_steering(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pack = reading_pack(model)
    settings = GenerationSettings(max_new_tokens=10)
    plain = Generation((5, 6, 7), settings)
    read = Generation((5, 6, 7), settings, Steered("a", pack, SteeringSpec(), True))
    with Engine(model) as engine:
        first, second = asked_for(engine, [plain, read], staggered=False)
        assert first.tokens() == second.tokens() == alone(model, plain)
        assert engine.state()["steered_tokens"] == 0
