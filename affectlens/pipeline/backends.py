"""The back end that a run asks for, opened for the packs it is to steer with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from affectlens.evaluation import Backend
    from affectlens.models import LanguageModel
    from affectlens.pipeline.run_config import RunConfig
    from affectlens.steering import SteeringPack

LOG = "vllm.log"
"""Where a server of our own writes, in the folder of what asks for it."""


def backend_of(
    config: RunConfig,
    model: LanguageModel,
    packs: Mapping[Path, SteeringPack],
    prompt: Sequence[int],
    folder: Path,
    arguments: Sequence[str] = (),
) -> AbstractContextManager[Backend]:
    """The back end of a run, while a block runs.

    Args:
        config: Says which.
        model: What must generate.
        packs: File to pack: all that will be steered with.
        prompt: Token ids of one of those to come, to know a server's model by.
        folder: For its log.
        arguments: More for a server of our own.

    Raises:
        DataError, MismatchError: If a server is not there, not steering, or not this model.
        ModelError: If there is none, or it does not start.
    """
    from affectlens.evaluation import BACKENDS, BackendRequest

    request = BackendRequest(
        model=model,
        source=config.model,
        packs=packs,
        prompt=tuple(prompt),
        url=config.url,
        python=config.vllm_python,
        log=folder / LOG,
        arguments=arguments,
        workers=config.ray_workers,
    )
    return BACKENDS[config.backend].open(request)
