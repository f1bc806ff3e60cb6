"""The backend that a run generates its arms with."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from affectlens.serving.checking import Server

if TYPE_CHECKING:
    from affectlens.evaluation.backends import Backend
    from affectlens.models import LanguageModel
    from affectlens.pipeline.stage import StageRun
    from affectlens.steering import SteeringPack

LOG = "vllm.log"
LONGEST = 4096
"""Tokens of prompt and reply that a server of our own has to hold."""


@contextmanager
def backend(
    run: StageRun, packs: Mapping[Path, SteeringPack], arguments: Sequence[str] = ()
) -> Generator[Backend]:
    """Open what generates: the model of the run, a server that is there, or one of our own.

    Args:
        run: Says which.
        packs: File to pack: all that will be steered with.
        arguments: More of ``vllm serve``, for a server of our own.

    Raises:
        DataError, MismatchError: If the server is not there, not steering, or not this model.
        ModelError: If there is no vLLM, or it does not start.
    """
    from affectlens.evaluation.backends import TIMEOUT, Transformers, Vllm
    from affectlens.models.generation.generation import encode_prompt

    config = run.context.config
    if config.backend == "transformers":
        yield Transformers(run.model)
        return
    key = os.environ.get("VLLM_API_KEY")
    if config.url is not None:
        found = Vllm.connect(Server(config.url, key, TIMEOUT), run.model, packs)
        found.require_model(run.model, encode_prompt(run.model, run.events("test")[0].text))
        yield found
        return
    from affectlens.serving.child_process import HOST, free_port, running
    from affectlens.serving.vllm.launching import prepare

    port = free_port()
    launch = prepare(
        [str(file) for file in packs],
        config.model,
        options={"max_packs": len(packs)},
        python=config.vllm_python,
        extra=["--host", HOST, "--port", str(port), *_arguments(run.model), *arguments],
    )
    server = Server(f"http://{HOST}:{port}", key, TIMEOUT)
    with running(launch, server, run.folder / LOG):
        yield Vllm.connect(server, run.model, packs)


def _arguments(model: LanguageModel) -> list[str]:
    """Number format and length of our own model; and beside it on a GPU, what memory is left."""
    import torch

    arguments = [
        "--dtype",
        str(model.dtype).removeprefix("torch."),
        "--max-model-len",
        str(min(model.context_length, LONGEST)),
    ]
    if model.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(model.device)
        arguments += ["--gpu-memory-utilization", f"{0.9 * free / total:.2f}"]
    return arguments
