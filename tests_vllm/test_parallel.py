"""Workers in processes of their own, as vLLM has them: one, or two that share a model."""

from __future__ import annotations

from pathlib import Path

from tests_vllm.cases import Case
from tests_vllm.engines import SETTINGS, Run, elsewhere, of_case
from tests_vllm.test_parity import close, require_equal


def test_two_halves_of_every_matrix(cases: list[Case], tmp_path: Path) -> None:
    run = elsewhere(
        [[of_case(case, read=True) for case in cases], [of_case(case) for case in cases[:12]]],
        tmp_path,
        settings=SETTINGS,
        tensor_parallel_size=2,
    )
    require_equal(run.rounds[0], cases)
    require_equal(run.rounds[1], cases[:12])
    for answer, case in zip(run.rounds[0], cases, strict=True):
        assert answer.reading is not None
        for found, wanted in zip(answer.reading["tokens"], case.readings, strict=True):
            assert all(close(found[at], layer) for at, layer in enumerate(wanted))
    require_idle(run, 2)


def test_two_halves_of_the_layers(cases: list[Case], tmp_path: Path) -> None:
    """Each stage steers its own layers; nothing is read, so there are no gates either."""
    ungated = [case for case in cases if "gate" not in str(case.spec)]
    gated = next(case for case in cases if "gate" in str(case.spec))
    run = elsewhere(
        [[of_case(case) for case in ungated]],
        tmp_path,
        settings=SETTINGS,
        refused=[of_case(gated), of_case(ungated[0], read=True)],
        pipeline_parallel_size=2,
    )
    require_equal(run.rounds[0], ungated)
    assert all("split into stages" in told for told in run.refusals)
    require_idle(run, 2)


def test_one_rank(cases: list[Case], tmp_path: Path) -> None:
    """What `LLM` does if nobody tells it otherwise: an engine process, and a worker process."""
    run = elsewhere(
        [[of_case(case, read=True) for case in cases]],
        tmp_path,
        environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_CPU_OMP_THREADS_BIND": "auto"},
        settings=SETTINGS,
    )
    assert run.runner == ""
    require_equal(run.rounds[0], cases)
    require_idle(run, 1)


def require_idle(run: Run, workers: int) -> None:
    """All of them have steered, and nobody is left."""
    assert len(run.states) == workers
    for found in run.states:
        assert (found["requests"], found["slots_in_use"]) == (0, 0)
        assert found["steered_tokens"] > 100
