"""One small adapter per model runner: which token of a step belongs to which request."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from affectlens.serving.settings import Settings
from affectlens.serving.vllm import internals
from affectlens.serving.vllm.worker import WorkerSteering
from affectlens.serving.vllm.worker_calls import answering

RPC = ("load_pack", "unload_pack", "state")
"""Methods of `WorkerSteering` that the front end calls, as ``affectlens_<name>`` of the worker."""


def attach(worker: Any, settings: Settings) -> None:
    """Steer a worker whose model has just been loaded.

    Raises:
        ModelError: If its family or runner is not understood.
    """
    runner, config = worker.model_runner, worker.vllm_config
    second = hasattr(runner, "model_state")
    for name in internals.V2_NAMES if second else internals.V1_NAMES:
        internals.find(name)
    steering = WorkerSteering(
        runner.model,
        settings,
        max_requests=int(config.scheduler_config.max_num_seqs),
        max_tokens=int(config.scheduler_config.max_num_batched_tokens),
        d_model=int(config.model_config.get_hidden_size()),
        device=runner.device,
        recorded=recorded(config.compilation_config),
    )
    (_attach_v2 if second else _attach_v1)(runner, steering)
    if steering.readings is not None:
        _attach_readings(runner, steering)
    for name in RPC:
        setattr(worker, f"affectlens_{name}", answering(getattr(steering, name)))


def recorded(compilation: Any) -> bool:
    """Whether vLLM compiles the model or records CUDA graphs of it."""
    modes = (compilation.mode, compilation.cudagraph_mode)
    return any(getattr(mode, "name", "NONE") != "NONE" for mode in modes)


def prompt_length(new: Any) -> int:
    """Tokens of the prompt of a request that is new to a worker.

    A prompt may come as embeddings, with token ids beside them or without; one row is a token.
    """
    given = new.prompt_token_ids if new.prompt_embeds is None else new.prompt_embeds
    return len(given)


def _attach_readings(runner: Any, steering: WorkerSteering) -> None:
    """Both runners sample after the forward pass in a call of its own."""
    sample = runner.sample_tokens

    @functools.wraps(sample)
    def sample_tokens(*args: Any, **kwargs: Any) -> Any:
        pending = steering.after_step()
        output = sample(*args, **kwargs)
        return output if pending is None else pending.hang_on(output)

    runner.sample_tokens = sample_tokens


def _attach_v1(runner: Any, steering: WorkerSteering) -> None:
    """``GPUModelRunner`` and its CPU form: requests by id, batch order as of this step."""
    update, forward = runner._update_states, runner._model_forward
    known: dict[str, Any] = {}

    @functools.wraps(update)
    def _update_states(scheduler_output: Any) -> Any:
        for request in scheduler_output.finished_req_ids:
            steering.remove(request)
            known.pop(request, None)
        result = update(scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            steering.add(new.req_id, new.sampling_params, prompt_length(new))
        known["scheduled"] = scheduler_output.num_scheduled_tokens
        return result

    @functools.wraps(forward)
    def _model_forward(*args: Any, **kwargs: Any) -> Any:
        batch, scheduled = runner.input_batch, known["scheduled"]
        n = batch.num_reqs
        requests = batch.req_ids[:n]
        steering.before_step(
            requests,
            np.asarray(batch.num_computed_tokens_cpu[:n]),
            np.array([scheduled[request] for request in requests]),
        )
        return forward(*args, **kwargs)

    runner._update_states, runner._model_forward = _update_states, _model_forward


def _attach_v2(runner: Any, steering: WorkerSteering) -> None:
    """The second runner: its model state sees every request come, run and go."""
    state = runner.model_state
    add, remove, prepare = state.add_request, state.remove_request, state.prepare_inputs

    @functools.wraps(add)
    def add_request(req_index: int, new_req_data: Any) -> Any:
        prompt = prompt_length(new_req_data)
        steering.add(new_req_data.req_id, new_req_data.sampling_params, prompt)
        return add(req_index, new_req_data)

    @functools.wraps(remove)
    def remove_request(req_id: str) -> Any:
        steering.remove(req_id)
        return remove(req_id)

    @functools.wraps(prepare)
    def prepare_inputs(input_batch: Any, req_states: Any) -> Any:
        n = input_batch.num_reqs
        steering.before_step(
            input_batch.req_ids[:n],
            np.asarray(input_batch.num_computed_tokens_np[:n]),
            np.asarray(input_batch.num_scheduled_tokens[:n]),
        )
        return prepare(input_batch, req_states)

    state.add_request, state.remove_request = add_request, remove_request
    state.prepare_inputs = prepare_inputs
