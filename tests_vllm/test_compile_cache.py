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

    steered = run(settings)
    assert STORED in steered.log and LOADED not in steered.log
    require_equal(steered.rounds[0], adds)
    plain = run(None)  # finds what steers, and leaves it alone
    assert STORED in plain.log and LOADED not in plain.log
    require_equal(plain.rounds[0][:1], adds[:1])
    again = run(settings)  # finds both, and takes its own
    assert LOADED in again.log and STORED not in again.log
    require_equal(again.rounds[0], adds)
