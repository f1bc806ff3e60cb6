"""vLLM with the plug-in against the package's Transformers path, and against vLLM without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests_vllm.cases import FOLDER, Case
from tests_vllm.engines import (
    SETTINGS,
    WITHOUT,
    Answer,
    ask,
    elsewhere,
    of_case,
    runner_of,
    start,
    state,
)

MODES = ("eager", "compiled")
OPTIONS: dict[str, Any] = {
    "eager": {},
    # Whole prompts in a step here, chunks there.
    "compiled": {"enforce_eager": False, "max_num_batched_tokens": 256},
}


@pytest.fixture(scope="module")
def compiled(own_caches: Path) -> Any:
    return start(settings=SETTINGS, **OPTIONS["compiled"])


@pytest.fixture(params=MODES)
def llm(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def close(found: Sequence[float], wanted: Sequence[float], tolerance: float = 1e-3) -> bool:
    return found == pytest.approx(wanted, abs=tolerance)


def require_equal(answers: Sequence[Answer], cases: Sequence[Case]) -> None:
    wrong = [
        f"{case.name}: {answer.tokens} instead of {list(case.tokens)}"
        for answer, case in zip(answers, cases, strict=True)
        if answer.tokens != list(case.tokens) or not close(answer.logprobs, case.logprobs)
    ]
    assert not wrong, "\n".join(wrong)


def test_all_in_one_batch(llm: Any, cases: list[Case]) -> None:
    """More requests than run at once: some wait, and join those that decode."""
    assert "cpu_model_runner" in runner_of(llm)
    require_equal(ask(llm, [of_case(case) for case in cases]), cases)
    assert state(llm)[0]["slots_in_use"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_maps_of_a_pack_that_has_them(
    mode: str, mapped_cases: list[Case], own_caches: Path
) -> None:
    packs = {"mapped": str(FOLDER / "mapped.safetensors")}
    llm = start(settings={"packs": packs}, **OPTIONS[mode])
    require_equal(ask(llm, [of_case(case) for case in mapped_cases]), mapped_cases)


def test_prompts_that_are_shared(llm: Any, cases: list[Case]) -> None:
    """The same again in another order, with the prefix cache full of blocks."""
    again = list(reversed(cases))
    answers = ask(llm, [of_case(case) for case in again])
    require_equal(answers, again)
    assert any(answer.cached for answer in answers)


def test_gates_that_are_always_open(llm: Any, cases: list[Case]) -> None:
    """The dose is the same as without them, in both modes, at all positions, with any operator."""
    free = [case for case in cases if case.spec not in (None, "none") and "gate" not in case.spec]
    assert {m for m in ("residual", "circuit") if any(f"mode={m}" in str(c.spec) for c in free)}
    gated = [of_case(case, spec=f"{case.spec};gate=anger>0.000001") for case in free]
    require_equal(ask(llm, gated), free)


def test_one_at_a_time(eager: Any, cases: list[Case]) -> None:
    require_equal([ask(eager, [of_case(case)])[0] for case in cases[::4]], cases[::4])


def test_readings(llm: Any, cases: list[Case]) -> None:
    """Probabilities per token, layer and class, steered and not."""
    llm.reset_prefix_cache()
    answers = ask(llm, [of_case(case, read=True) for case in cases])
    require_equal(answers, cases)
    for answer, case in zip(answers, cases, strict=True):
        assert answer.reading is not None
        assert len(answer.reading["tokens"]) == len(case.tokens)
        for found, wanted in zip(answer.reading["tokens"], case.readings, strict=True):
            for at, layer in enumerate(wanted):
                assert close(found[at], layer)
        for at, layer in enumerate(case.reply):
            assert close(answer.reading["reply"][at], layer)


def test_only_some_are_read(eager: Any, cases: list[Case]) -> None:
    answers = ask(eager, [of_case(case, read=i % 3 == 0) for i, case in enumerate(cases)])
    assert [answer.reading is not None for answer in answers] == [
        i % 3 == 0 for i in range(len(cases))
    ]
    require_equal(answers, cases)


@pytest.mark.parametrize("mode", MODES)
def test_unsteered_requests_are_bit_identical(mode: str, cases: list[Case], tmp_path: Path) -> None:
    """To those of a server without the plug-in: beside steered ones, beside none, read or not.

    Each engine in a process of its own: the second one in a process rounds otherwise than the
    first, plug-in or not.
    """
    bare = [of_case(case, spec=None) for case in cases]
    read = [{**one, "extra_args": {"affectlens_read": True}} for one in bare]
    mixed = [  # every request is once beside steered ones, unsteered itself
        [of_case(case) if i % 2 == odd else one for i, (case, one) in enumerate(zip(cases, bare))]  # noqa: B905
        for odd in (0, 1)
    ]
    options: dict[str, Any] = {**OPTIONS[mode], "enable_prefix_caching": False}
    (without,) = elsewhere([bare], tmp_path, environment=WITHOUT, **options).rounds
    require_equal([without[0]], cases[:1])
    alone, *beside, looked_at = elsewhere(
        [bare, *mixed, read], tmp_path, settings=SETTINGS, **options
    ).rounds
    assert same(alone, without)
    assert same(looked_at, without)
    for odd, found in enumerate(beside):
        assert same(found[1 - odd :: 2], without[1 - odd :: 2])
        assert not same(found[odd::2], without[odd::2])


def same(found: Sequence[Answer], wanted: Sequence[Answer]) -> bool:
    return [(a.tokens, a.logprobs) for a in found] == [(a.tokens, a.logprobs) for a in wanted]
