"""Every private name of vLLM that the plug-in relies on, and the versions it was tested with.

vLLM promises none of these. Each is looked up when the plug-in is switched on; a version where one
is missing is refused in words, for a plug-in that silently does nothing is the worst of all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from affectlens.core import ModelError

TESTED = ("0.32",)
"""Releases (major.minor) the tests run on."""

CREATE_CONFIG = "vllm.engine.arg_utils:EngineArgs.create_engine_config"
PROCESS_INPUTS = "vllm.v1.engine.input_processor:InputProcessor.process_inputs"
GENERATE = "vllm.v1.engine.async_llm:AsyncLLM.generate"
ADD_REQUEST = "vllm.v1.engine.output_processor:OutputProcessor.add_request"
BLOCK_KEYS = "vllm.v1.core.kv_cache_utils:generate_block_hash_extra_keys"
MAKE_WORKER = "vllm.v1.worker.worker_base:WorkerBase.__init__"
INIT_CACHES = "vllm.v1.engine.core:EngineCore._initialize_kv_caches"
UPDATE_FROM_OUTPUT = "vllm.v1.core.sched.scheduler:Scheduler.update_from_output"
PROCESS_OUTPUTS = "vllm.v1.engine.output_processor:OutputProcessor.process_outputs"
ADD_OUTPUT = "vllm.outputs:RequestOutput.add"

_CHAT = "vllm.entrypoints.openai.chat_completion.protocol"
_COMPLETION = "vllm.entrypoints.openai.completion.protocol:CompletionRequest"
SAMPLING_PARAMS = (
    f"{_CHAT}:ChatCompletionRequest.to_sampling_params",
    f"{_COMPLETION}.to_sampling_params",
    "vllm.entrypoints.openai.responses.protocol:ResponsesRequest.to_sampling_params",
)
BATCH_CHAT = f"{_CHAT}:BatchChatCompletionRequest.to_chat_completion_request"
BEAM_PARAMS = (
    f"{_CHAT}:ChatCompletionRequest.to_beam_search_params",
    f"{_COMPLETION}.to_beam_search_params",
)
_BEAMS = "vllm.entrypoints.generate.beam_search"
BEAMS = f"{_BEAMS}.online:BeamSearchOnlineMixin.beam_search"
BEAMS_OFFLINE = f"{_BEAMS}.offline:BeamSearchOfflineMixin.beam_search"
BEAM_PROMPT = f"{_BEAMS}.utils:BeamSearchSequence.get_prompt"
PREPROCESS = "vllm.entrypoints.common.offline:OfflineInferenceMixin._preprocess_cmpl"

NAMES = (
    CREATE_CONFIG, PROCESS_INPUTS, GENERATE, ADD_REQUEST, BLOCK_KEYS, MAKE_WORKER, INIT_CACHES,
    UPDATE_FROM_OUTPUT, PROCESS_OUTPUTS, ADD_OUTPUT, *SAMPLING_PARAMS, BATCH_CHAT, *BEAM_PARAMS,
    BEAMS, BEAMS_OFFLINE, BEAM_PROMPT, PREPROCESS,
)  # fmt: skip
"""All that is looked up wherever the plug-in is switched on."""

HTTP_NAMES = (
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat"
    ".chat_completion_stream_generator",
    "vllm.entrypoints.openai.completion.serving:OpenAIServingCompletion"
    ".completion_stream_generator",
)
"""Looked up only where clients are served over HTTP."""

V1_NAMES = (
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._model_forward",
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner._update_states",
)
V2_NAMES = (
    "vllm.v1.worker.gpu.model_states.interface:ModelState.add_request",
    "vllm.v1.worker.gpu.model_states.interface:ModelState.remove_request",
    "vllm.v1.worker.gpu.model_states.interface:ModelState.prepare_inputs",
)


def find(name: str) -> tuple[Any, str, Any]:
    """Owner, attribute and value behind ``"module:path.to.attribute"``.

    Raises:
        ModelError: If this vLLM has no such thing.
    """
    module, _, path = name.partition(":")
    try:
        owner: Any = importlib.import_module(module)
        *parents, attribute = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        return owner, attribute, getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"This vLLM ({version()}) has no {name} ({error}), which steering needs; install vLLM "
            f"{' or '.join(TESTED)}."
        ) from error


def version() -> str:
    """Of the vLLM that is installed."""
    return str(importlib.import_module("vllm").__version__)


def check(*, untested: bool = False) -> None:
    """Refuse a vLLM that steering was not tested with.

    Args:
        untested: Accept another version, if all names are there.

    Raises:
        ModelError: Naming the version, or the first name that is missing.
    """
    found = version()
    if not untested and ".".join(found.split(".")[:2]) not in TESTED:
        raise ModelError(
            f"Steering was tested with vLLM {' and '.join(TESTED)}, this is {found}; install one "
            "of those, or set untested_version to true and check the server."
        )
    for name in NAMES:
        find(name)


def wrap(name: str, around: Callable[[Any], Any]) -> None:
    """Replace something by a wrapper of it, once, whoever wrapped it before.

    Args:
        name: As for `find`.
        around: From the present value to the new one.
    """
    owner, attribute, value = find(name)
    if getattr(value, "_affectlens", False):
        return
    wrapper = around(value)
    wrapper._affectlens = True
    setattr(owner, attribute, wrapper)
