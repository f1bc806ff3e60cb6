"""Engines of real vLLM on the CPU, in this process or another one, and what they answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests_vllm.cases import FOLDER, NEW, Case
from tests_vllm.gpu_compiler import switch_on

ROOT = Path(__file__).parent.parent
ENVIRONMENT: Mapping[str, str] = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""For every process that runs vLLM here."""

WITHOUT = {"VLLM_PLUGINS": "none"}
"""Leaves the plug-in out."""

SECOND_RUNNER = {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "site"), str(ROOT)]),
}
"""Runs vLLM's second model runner without a GPU."""

BLOCK = 32
"""Tokens of a block of keys and values."""

SETTINGS: Mapping[str, Any] = {"packs": {"tiny": str(FOLDER / "tiny.safetensors")}}
"""Of the plug-in, for the tiny model."""

TINY: Mapping[str, Any] = {
    "model": str(FOLDER / "tiny"),
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 12,
    "max_num_batched_tokens": 48,
    "block_size": BLOCK,
    "num_gpu_blocks_override": 400,
    "enforce_eager": True,
    "disable_log_stats": True,
    "seed": 0,
}
"""Options of an engine: less room than there are requests, and shorter steps than prompts."""


@dataclass(frozen=True)
class Answer:
    """A reply of vLLM.

    Attributes:
        tokens: Its tokens.
        logprobs: Of its tokens, if they were asked for.
        cached: Tokens of the prompt that came from the prefix cache.
        reading: What the probes say, if that was asked for.
    """

    tokens: list[int]
    logprobs: list[float]
    cached: int
    reading: dict[str, Any] | None

    @classmethod
    def of(cls, output: Any, index: int = 0) -> Answer:
        """From vLLM's output of a request."""
        reply = output.outputs[index]
        tokens = list(reply.token_ids)
        found = reply.logprobs or []
        logprobs = [one[token].logprob for one, token in zip(found, tokens, strict=False)]
        reading = (output.kv_transfer_params or {}).get("affectlens")
        return cls(tokens, logprobs, int(output.num_cached_tokens or 0), reading)


def request(
    prompt: Sequence[int], spec: Any = None, new: int = NEW, *, read: bool = False, **options: Any
) -> dict[str, Any]:
    """A request in plain values.

    Args:
        prompt: Token ids.
        spec: Of steering; None leaves it out.
        new: Tokens of the reply, no fewer and no more.
        read: Whether emotions are to be read.
        options: More sampling parameters.
    """
    extra = options.pop("extra_args", {})
    if spec is not None:
        extra = {**extra, "affectlens": spec}
    if read:
        extra = {**extra, "affectlens_read": True}
    params = {"temperature": 0.0, "max_tokens": new, "min_tokens": new, "logprobs": 0}
    return {"prompt": list(prompt), **params, "extra_args": extra or None, **options}


def of_case(case: Case, *, read: bool = False, spec: Any = ...) -> dict[str, Any]:
    """The request of a case, perhaps with another spec."""
    return request(case.prompt, case.spec if spec is ... else spec, len(case.tokens), read=read)


def start(**options: Any) -> Any:
    """An engine in this process.

    Args:
        options: That differ from `TINY`; ``settings`` are those of the plug-in.
    """
    from vllm import LLM

    llm = LLM(**engine_options(**options))
    _STARTED.append(llm)  # one that is collected takes what they share from the others
    return llm


_STARTED: list[Any] = []


def engine_options(settings: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Arguments of ``LLM``, or of ``AsyncEngineArgs``."""
    steering = {} if settings is None else {"additional_config": {"affectlens": dict(settings)}}
    return {**TINY, **steering, **options}


def raw(llm: Any, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """vLLM's outputs of requests that come at once."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": one["prompt"]} for one in requests]
    params = [SamplingParams(**{k: v for k, v in one.items() if k != "prompt"}) for one in requests]
    return llm.generate(prompts, params, use_tqdm=False)


def ask(llm: Any, requests: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """What an engine answers to requests that come at once."""
    return [Answer.of(output) for output in raw(llm, requests)]


def state(llm: Any) -> list[dict[str, Any]]:
    """What the workers know; they hear with the next step that a request has ended."""
    ask(llm, [request([5, 6, 7], new=1)])
    return llm.collective_rpc("affectlens_state")


@dataclass(frozen=True)
class Run:
    """What an engine in another process has answered.

    Attributes:
        rounds: Answers per round.
        states: Of the workers at the end; empty without the plug-in.
        runner: Class of the model runner with its module, where it could be seen.
        refusals: What requests that had to be refused were told.
        log: What the process has written.
    """

    rounds: list[list[Answer]]
    states: list[dict[str, Any]]
    runner: str
    refusals: list[str]
    log: str


def elsewhere(
    rounds: Sequence[Sequence[Mapping[str, Any]]],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 1200,
    gpu_compiler: bool = False,
    refused: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> Run:
    """Ask an engine in a process of its own.

    Args:
        rounds: Requests that come at once, several times.
        folder: For files.
        environment: Variables that differ from `ENVIRONMENT`.
        timeout: Seconds after which it has failed.
        gpu_compiler: Whether to compile as on GPUs; see `tests_vllm.gpu_compiler`.
        refused: Requests that are to be refused.
        options: As for `start`.
    """
    plan, answers = folder / "plan.json", folder / "answers.json"
    answers.unlink(missing_ok=True)
    given = {
        "engine": engine_options(**options), "rounds": rounds, "gpu_compiler": gpu_compiler,
        "refused": refused,
    }  # fmt: skip
    plan.write_text(json.dumps(given))
    done = subprocess.run(
        [sys.executable, "-m", "tests_vllm.engines", str(plan), str(answers)],
        cwd=ROOT, env={**os.environ, **ENVIRONMENT, **(environment or {})}, timeout=timeout,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and answers.exists(), done.stdout[-6000:]
    found = json.loads(answers.read_text())
    return Run(
        [[Answer(**one) for one in batch] for batch in found["rounds"]],
        found["states"],
        found["runner"],
        found["refusals"],
        done.stdout,
    )


def main(plan: str, answers: str) -> None:
    """The other process."""
    from vllm import LLM

    given = json.loads(Path(plan).read_text())
    if given["gpu_compiler"]:
        switch_on()
    llm = LLM(**given["engine"])
    if given["engine"].get("pipeline_parallel_size", 1) > 1:
        # The CPU build makes what stages hand on in its warm-up, which it skips in eager mode.
        llm.collective_rpc("execute_dummy_batch")
    rounds = [[asdict(answer) for answer in ask(llm, batch)] for batch in given["rounds"]]
    steers = "affectlens" in (given["engine"].get("additional_config") or {})
    steers = steers and os.environ.get("VLLM_PLUGINS") != "none"
    found = {
        "rounds": rounds,
        "states": state(llm) if steers else [],
        "runner": runner_of(llm),
        "refusals": [refusal(llm, one) for one in given["refused"]],
    }
    Path(answers).write_text(json.dumps(found))


def refusal(llm: Any, asked: Mapping[str, Any]) -> str:
    """What a request is told that cannot be served; empty if it is served."""
    try:
        ask(llm, [asked])
    except ValueError as error:
        return str(error)
    return ""


def runner_of(llm: Any) -> str:
    """Class and module of the model runner; empty where it lives in another process."""
    try:
        core = llm.llm_engine.engine_core.engine_core
        runner = core.model_executor.driver_worker.worker.model_runner
    except AttributeError:
        return ""
    return f"{type(runner).__module__}.{type(runner).__name__}"


if __name__ == "__main__":
    main(*sys.argv[1:])
