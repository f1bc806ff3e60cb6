"""The entry point: vLLM calls `register` in every process before it builds anything.

What it wraps passes everything through unless ``additional_config`` holds our settings. Wrapping
chains with other plug-ins; nothing is replaced.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from affectlens.core import AffectLensError, ModelError
from affectlens.serving.contract import KEY
from affectlens.serving.settings import Settings
from affectlens.serving.vllm import beam_search as beams
from affectlens.serving.vllm import client_checks as clients
from affectlens.serving.vllm import in_flight as inflight
from affectlens.serving.vllm import internals
from affectlens.serving.vllm import live_readings as reading
from affectlens.serving.vllm.front_door import FrontDoor, refuse_unconfigured

logger = logging.getLogger(__name__)


def register() -> None:
    """Wrap vLLM's doors; safe to call more than once."""
    doors: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        (internals.CREATE_CONFIG, _configuring),
        (internals.PROCESS_INPUTS, _admitting),
        (internals.GENERATE, looking_first),
        (internals.ADD_REQUEST, inflight.noting),
        (internals.BLOCK_KEYS, _hashing),
        (internals.MAKE_WORKER, _making_workers),
        (internals.INIT_CACHES, _making_sure),
        (internals.UPDATE_FROM_OUTPUT, reading.pass_on),
        (internals.PROCESS_OUTPUTS, reading.report_outputs),
        (internals.ADD_OUTPUT, reading.merge),
        *((name, clients.looking) for name in internals.SAMPLING_PARAMS),
        (internals.BATCH_CHAT, clients.splitting),
        *((name, beams.keeping) for name in internals.BEAM_PARAMS),
        (internals.BEAMS, beams.searching),
        (internals.BEAMS_OFFLINE, beams.searching_offline),
        (internals.BEAM_PROMPT, beams.continuing),
    )
    try:
        for name, around in doors:
            internals.wrap(name, around)
    except AffectLensError as error:
        # A vLLM without these names may still serve unsteered models; asked to steer, it refuses.
        logger.warning("%s", error)


def _configuring(create: Any) -> Any:
    """Check the settings, packs and model when the server is configured."""

    @functools.wraps(create)
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = create(self, *args, **kwargs)
        settings = Settings.of(config.additional_config)
        if settings is None:
            return config
        internals.check(untested=settings.untested_version)
        from affectlens.serving.vllm.startup_checks import check_start

        config.additional_config = {
            **config.additional_config,
            KEY: check_start(settings, config).to_dict(),
        }
        return config

    return create_engine_config


def _admitting(process: Any) -> Any:
    """Understand or refuse each request."""

    @functools.wraps(process)
    def process_inputs(
        self: Any, request_id: str, prompt: Any, params: Any, *a: Any, **k: Any
    ) -> Any:
        params, door = _brought(self, prompt, params)
        if door is not None:
            params = door.admit(params)
        return process(self, request_id, prompt, params, *a, **k)

    return process_inputs


def looking_first(generate: Any) -> Any:
    """Refuse before a stream begins, whose status would have been sent by then."""

    @functools.wraps(generate)
    def wrapper(self: Any, prompt: Any, sampling_params: Any, *args: Any, **kwargs: Any) -> Any:
        asked, door = _brought(self.input_processor, prompt, sampling_params)
        if door is not None:
            door.look(asked)
            _streaming()
        return generate(self, prompt, sampling_params, *args, **kwargs)

    return wrapper


def _brought(processor: Any, prompt: Any, params: Any) -> tuple[Any, FrontDoor | None]:
    """What a request brings, and the door that it has to pass; None if there is none for it.

    Raises:
        Refused: If it asks for steering where there is none.
    """
    asked, door = beams.carried(prompt, params), door_of(processor)
    if door is None:
        refuse_unconfigured(asked)
    return asked, door if hasattr(asked, "extra_args") else None


def door_of(processor: Any) -> Any:
    """The front door of vLLM's input processor, made on first use; None without settings."""
    if "_affectlens_door" not in vars(processor):
        settings = Settings.of(processor.vllm_config.additional_config)
        processor._affectlens_door = None if settings is None else FrontDoor(settings)
    return processor._affectlens_door


def _streaming() -> None:
    """Let streams carry readings, where this process serves any (the classes are loaded by now)."""
    from affectlens.serving.vllm.streamed_readings import with_readings

    for name in internals.HTTP_NAMES:
        if name.partition(":")[0] in sys.modules:
            internals.wrap(name, with_readings)


def _hashing(generate: Any) -> Any:
    """Keep differently steered blocks apart in the prefix cache."""
    from affectlens.serving.vllm.prefix_cache import block_key

    @functools.wraps(generate)
    def generate_block_hash_extra_keys(
        request: Any, start_token_idx: int, end_token_idx: int, *a: Any, **k: Any
    ) -> Any:
        keys, mm_index = generate(request, start_token_idx, end_token_idx, *a, **k)
        key = block_key(request, end_token_idx)
        return ((*(keys or ()), key) if key else keys), mm_index

    return generate_block_hash_extra_keys


def _making_workers(init: Any) -> Any:
    """Install steering between loading a model and its first compilation.

    A worker in a process of its own loads plug-ins just before it is made, so nothing that happens
    earlier may be relied on.
    """

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        settings = Settings.of(self.vllm_config.additional_config)
        if settings is None:
            return
        load = self.load_model

        @functools.wraps(load)
        def load_model(*a: Any, **k: Any) -> Any:
            from affectlens.serving.vllm.model_runners import attach

            loaded = load(*a, **k)
            attach(self, settings)
            return loaded

        self.load_model = load_model

    return __init__


def _making_sure(initialize: Any) -> Any:
    """Do not serve with workers that would answer unsteered, whatever kept them from steering."""

    @functools.wraps(initialize)
    def _initialize_kv_caches(self: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        if Settings.of(config.additional_config) is not None:
            try:
                self.model_executor.collective_rpc("affectlens_state")
            except Exception as error:
                raise ModelError(
                    f"The workers of this vLLM do not steer ({type(error).__name__}: {error}). "
                    "Install affectlens wherever workers run, and let VLLM_PLUGINS name it there "
                    "if it is set."
                ) from error
        return initialize(self, config, *args, **kwargs)

    return _initialize_kv_caches
