"""The entry point: vLLM calls `register` in every process before it builds anything.

What it wraps passes everything through unless ``additional_config`` holds our settings. Wrapping
chains with other plug-ins; nothing is replaced.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

from affectlens.core import AffectLensError
from affectlens.steering.servers.vllm_plugin import internals, reading
from affectlens.steering.servers.vllm_plugin.settings import KEY, Settings

logger = logging.getLogger(__name__)


def register() -> None:
    """Wrap vLLM's doors; safe to call more than once."""
    try:
        internals.wrap(internals.NAMES[0], _configuring)
        internals.wrap(internals.NAMES[1], _admitting)
        internals.wrap(internals.NAMES[2], _hashing)
        internals.wrap(internals.NAMES[3], _making_workers)
        internals.wrap(internals.NAMES[4], reading.pass_on)
        internals.wrap(internals.NAMES[5], reading.report_outputs)
        internals.wrap(internals.NAMES[6], reading.merge)
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
        from affectlens.steering.servers.vllm_plugin.startup import check_start

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
        from affectlens.steering.servers.vllm_plugin.frontdoor import refuse_unconfigured

        door = door_of(self)
        if door is None:
            refuse_unconfigured(params)
        elif hasattr(params, "extra_args"):
            params = door.admit(params)
        return process(self, request_id, prompt, params, *a, **k)

    return process_inputs


def door_of(processor: Any) -> Any:
    """The front door of vLLM's input processor, made on first use; None without settings."""
    if "_affectlens_door" not in vars(processor):
        from affectlens.steering.servers.vllm_plugin.frontdoor import FrontDoor

        settings = Settings.of(processor.vllm_config.additional_config)
        processor._affectlens_door = None if settings is None else FrontDoor(settings)
        if settings is not None:
            _streaming()
    return processor._affectlens_door


def _streaming() -> None:
    """Let streams carry readings, where this process serves any (the classes are loaded then)."""
    from affectlens.steering.servers.vllm_plugin.streaming import with_readings

    for name in internals.HTTP_NAMES:
        if name.partition(":")[0] in sys.modules:
            internals.wrap(name, with_readings)


def _hashing(generate: Any) -> Any:
    """Keep differently steered blocks apart in the prefix cache."""
    from affectlens.steering.servers.vllm_plugin.blocks import block_key

    @functools.wraps(generate)
    def generate_block_hash_extra_keys(
        request: Any, start_token_idx: int, end_token_idx: int, *a: Any, **k: Any
    ) -> Any:
        keys, mm_index = generate(request, start_token_idx, end_token_idx, *a, **k)
        key = block_key(request, end_token_idx)
        return ((*(keys or ()), key) if key else keys), mm_index

    return generate_block_hash_extra_keys


def _making_workers(init: Any) -> Any:
    """Install steering between loading a model and its first compilation."""

    @functools.wraps(init)
    def init_worker(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = init(self, *args, **kwargs)
        worker = self.worker
        settings = Settings.of(worker.vllm_config.additional_config)
        if settings is not None:
            load = worker.load_model

            @functools.wraps(load)
            def load_model(*a: Any, **k: Any) -> Any:
                from affectlens.steering.servers.vllm_plugin.runners import attach

                loaded = load(*a, **k)
                attach(worker, settings)
                return loaded

            worker.load_model = load_model
        return result

    return init_worker
