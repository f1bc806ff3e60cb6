"""vLLM as a back end: a server that is there, or one that is started while it is needed."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.evaluation.backends.base import BackendKind, BackendRequest
from affectlens.evaluation.backends.vllm_client import CONCURRENT, TIMEOUT, Vllm
from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port, running

if TYPE_CHECKING:
    from affectlens.models import LanguageModel

LONGEST = 4096
"""Tokens of prompt and reply that a server of our own has to hold."""

CPU_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "4"}
"""GiB of keys and values on a CPU; vLLM itself wants nearly all memory, of which we have a part."""


@contextmanager
def open_vllm(request: BackendRequest) -> Generator[Vllm]:
    """A server that has the model and the packs.

    Raises:
        DataError, MismatchError: If the server is not there, not steering, or not this model.
        ModelError: If there is no vLLM, or it does not start.
    """
    key, model = os.environ.get("VLLM_API_KEY"), request.model
    if request.url is not None:
        found = Vllm.connect(Server(request.url, key, TIMEOUT), model, request.packs)
        found.require_model(model, request.prompt)
        yield found
        return
    from affectlens.serving.vllm.launching import prepare

    port = free_port()
    launch = prepare(
        [str(file) for file in request.packs],
        request.source,
        options={"max_packs": len(request.packs)},
        python=request.python,
        extra=["--host", HOST, "--port", str(port), *_arguments(model), *request.arguments],
    )
    if model.device.type == "cpu":
        launch = replace(launch, environment={**CPU_CACHE, **launch.environment})
    server = Server(f"http://{HOST}:{port}", key, TIMEOUT)
    with running(launch, server, request.log):
        yield Vllm.connect(server, model, request.packs)


def _arguments(model: LanguageModel) -> list[str]:
    """Number format and length of our own model; and beside it on a GPU, what memory is left."""
    import torch

    arguments = [
        "--dtype",
        str(model.dtype).removeprefix("torch."),
        "--max-model-len",
        str(min(model.context_length, LONGEST)),
        "--max-num-seqs",  # the plug-in's tables have a place for each
        str(CONCURRENT),
    ]
    if model.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(model.device)
        arguments += ["--gpu-memory-utilization", f"{0.9 * free / total:.2f}"]
    return arguments


VLLM = BackendKind(
    "vllm",
    "a vLLM server with the plug-in: many replies at once",
    open_vllm,
    has_address=True,
    every_spec=False,
)
