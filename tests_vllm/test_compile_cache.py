"""What vLLM compiled without steering must not be used with it, nor the other way round.

On GPUs vLLM stores compiled models and loads them without looking at the code again; its CPU build
is told here to do the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests_vllm.cases import Case
from tests_vllm.engines import SETTINGS, Run, elsewhere, of_case
from tests_vllm.test_parity import require_equal

STORED, LOADED = "saved AOT compiled function", "Directly load AOT compilation"


def test_one_cache_for_all(tmp_path: Path, cases: list[Case]) -> None:
    adds = [c for c in cases if "operator" not in str(c.spec) and "gate" not in str(c.spec)]
    settings = {**SETTINGS, "operators": ["add"], "read": False}

    def run(settings: Any) -> Run:
        return elsewhere(
            [[of_case(case, spec=None if settings is None else case.spec) for case in adds]],
            tmp_path,
            environment={"VLLM_CACHE_ROOT": str(tmp_path / "cache"), "VLLM_LOGGING_LEVEL": "INFO"},
            settings=settings, gpu_compiler=True, enforce_eager=False,
        )  # fmt: skip

    without = run(None)
    assert STORED in without.log
    require_equal(without.rounds[0][:1], adds[:1])
    first = run(settings)
    assert STORED in first.log and LOADED not in first.log
    require_equal(first.rounds[0], adds)
    second = run(settings)
    assert LOADED in second.log and STORED not in second.log
    require_equal(second.rounds[0], adds)
    again = run(None)
    assert LOADED in again.log
    assert again.rounds == without.rounds
