"""The default model: all six emotions in both modes, in the numbers of Transformers."""

from __future__ import annotations

from typing import Any

import pytest

from tests_vllm.cases import FOLDER, Case
from tests_vllm.engines import ask, of_case, start, state
from tests_vllm.test_parity import close, require_equal


@pytest.fixture(scope="module", params=["eager", "compiled"])
def llm(request: pytest.FixtureRequest, real_folder: str, own_caches: Any) -> Any:
    return start(
        model=real_folder,
        settings={"packs": str(FOLDER / "real.safetensors")},
        enforce_eager=request.param == "eager",
        max_num_seqs=16,
        max_num_batched_tokens=128,
    )


def test_six_emotions_in_one_batch(llm: Any, real_cases: list[Case]) -> None:
    answers = ask(llm, [of_case(case, read=True) for case in real_cases])
    require_equal(answers, real_cases)
    for answer, case in zip(answers, real_cases, strict=True):
        assert answer.reading is not None
        for found, wanted in zip(answer.reading["tokens"], case.readings, strict=True):
            assert all(close(found[at], layer) for at, layer in enumerate(wanted))
    assert state(llm)[0]["slots_in_use"] == 0


def test_chat(llm: Any, real_cases: list[Case]) -> None:
    """vLLM renders the chat as the package does."""
    from vllm import SamplingParams

    chats = [[{"role": "user", "content": case.text}] for case in real_cases]
    params = [
        SamplingParams(
            temperature=0.0, max_tokens=len(case.tokens), min_tokens=len(case.tokens),
            extra_args=None if case.spec is None else {"affectlens": case.spec},
        )
        for case in real_cases
    ]  # fmt: skip
    for output, case in zip(llm.chat(chats, params, use_tqdm=False), real_cases, strict=True):
        assert list(output.prompt_token_ids) == list(case.prompt)
        assert list(output.outputs[0].token_ids) == list(case.tokens)
