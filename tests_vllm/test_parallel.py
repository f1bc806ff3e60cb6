"""Two processes that share a model: halves of every matrix, or halves of the layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests_vllm.cases import Case
from tests_vllm.engines import SETTINGS, elsewhere, of_case
from tests_vllm.test_parity import close, require_equal


@pytest.mark.parametrize("kind", ["tensor", "pipeline"])
def test_two_ranks(kind: str, cases: list[Case], tmp_path: Path) -> None:
    run = elsewhere(
        [[of_case(case, read=True) for case in cases], [of_case(case) for case in cases[:12]]],
        tmp_path,
        settings=SETTINGS,
        **{f"{kind}_parallel_size": 2},
    )
    require_equal(run.rounds[0], cases)
    require_equal(run.rounds[1], cases[:12])
    for answer, case in zip(run.rounds[0], cases, strict=True):
        assert answer.reading is not None
        for found, wanted in zip(answer.reading["tokens"], case.readings, strict=True):
            assert all(close(found[at], layer) for at, layer in enumerate(wanted))
    assert len(run.states) == 2
    for found in run.states:
        assert (found["requests"], found["slots_in_use"]) == (0, 0)
        assert found["steered_tokens"] > 100
