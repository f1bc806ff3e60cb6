"""vLLM's second model runner, the default on GPUs, for real under Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_vllm.cases import Case
from tests_vllm.engines import (
    BLOCK,
    SECOND_RUNNER,
    SETTINGS,
    WITHOUT,
    Run,
    elsewhere,
    of_case,
    request,
)
from tests_vllm.test_parity import close, require_equal, same
from tests_vllm.test_prefix_cache import prompt_of

ROOM = {"max_num_seqs": 6, "max_num_batched_tokens": 64}
SHARED = [
    request(prompt_of(1), spec, 4)
    for spec in (
        None,
        "anger=1;positions=all",
        "anger=1;positions=generated",
        "fear=1;positions=all",
    )
]


@pytest.fixture(scope="module")
def run(cases: list[Case], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight unsteered, half of them steered, all cases at once, and equal prompts twice.

    The unsteered come first, so that an engine without the plug-in need be asked no more than that
    to be in the same state: under the interpreter every token is slow.
    """
    bare = [of_case(case, spec=None) for case in cases[:8]]
    half = [of_case(case) if i % 2 else one for i, (case, one) in enumerate(zip(cases, bare))]  # noqa: B905
    return elsewhere(
        [bare, half, [of_case(case, read=True) for case in cases], SHARED, SHARED],
        tmp_path_factory.mktemp("second"),
        environment=SECOND_RUNNER, settings=SETTINGS, enforce_eager=True, **ROOM,
    )  # fmt: skip


def test_it_is_the_second_runner(run: Run) -> None:
    assert run.runner == "vllm.v1.worker.cpu.model_runner.CPUModelRunner"


def test_all_in_one_batch(run: Run, cases: list[Case]) -> None:
    require_equal(run.rounds[2], cases)
    assert run.states[0]["slots_in_use"] == 0 and run.states[0]["steered_tokens"] > 100


def test_readings(run: Run, cases: list[Case]) -> None:
    for answer, case in zip(run.rounds[2], cases, strict=True):
        assert answer.reading is not None
        for found, wanted in zip(answer.reading["tokens"], case.readings, strict=True):
            assert all(close(found[at], layer) for at, layer in enumerate(wanted))


def test_unsteered_requests_are_bit_identical(run: Run, cases: list[Case], tmp_path: Path) -> None:
    bare = [of_case(case, spec=None) for case in cases[:8]]
    without = elsewhere(
        [bare, bare], tmp_path, environment={**SECOND_RUNNER, **WITHOUT}, **ROOM,
    ).rounds  # fmt: skip
    assert same(run.rounds[0], without[0])
    assert same(run.rounds[1][::2], without[1][::2])
    assert not same(run.rounds[1][1::2], without[1][1::2])


def test_the_prefix_cache(run: Run) -> None:
    """The second time everybody finds blocks, and says the same."""
    first, second = run.rounds[3:]
    assert [a.tokens for a in first] == [a.tokens for a in second]
    assert len({tuple(a.logprobs) for a in first}) == len(SHARED)
    assert [a.cached for a in second] == [2 * BLOCK] * len(SHARED)
