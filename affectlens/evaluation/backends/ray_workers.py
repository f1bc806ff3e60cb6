"""Ray as a back end: processes with a model each share the replies, here or on a cluster."""

from __future__ import annotations

import logging
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from affectlens.activations.distributed.job_queue import (
    LIVES,
    PATIENCE,
    lost_too_often,
    result_of,
)
from affectlens.core.errors import MismatchError
from affectlens.evaluation.backends.base import Advance, BackendKind, BackendRequest, Ids

if TYPE_CHECKING:
    from affectlens.activations.distributed.actor import Source
    from affectlens.models import LanguageModel
    from affectlens.models.generation.generation import GenerationSettings
    from affectlens.steering import SteeringPack

PARTS = 4
"""Pieces of the work per worker: enough to even out, few enough to share prompts."""
LEAST = 16
"""Replies of a piece: fewer would not fill a batch."""
WORKERS = 2
"""Where there is no GPU and nobody says how many."""


logger = logging.getLogger(__name__)


class Writer:
    """What runs in a worker: its own model, which continues the prompts it is given.

    Args:
        source: The model.
        fingerprint: That it must have.
        threads: For its computations.
    """

    def __init__(self, source: Source, fingerprint: str, threads: int) -> None:
        self._source, self._fingerprint, self._threads = source, fingerprint, threads

    @cached_property
    def model(self) -> LanguageModel:
        """Loaded when first needed.

        Raises:
            MismatchError: If the weights are others than those that are asked for.
        """
        import torch

        torch.set_num_threads(self._threads)
        model = self._source.load()
        if model.fingerprint != self._fingerprint:
            raise MismatchError(
                f"{self._source.name} has other weights on {socket.gethostname()} "
                f"({model.fingerprint}, not {self._fingerprint}); give a name or path that means "
                "the same model on all machines."
            )
        return model

    def ready(self) -> None:
        """There is a place for it."""

    def generate(
        self,
        prompts: Sequence[Ids],
        specs: Sequence[Any],
        pack: SteeringPack | None,
        settings: GenerationSettings,
    ) -> list[Ids]:
        """See `Backend.generate`."""
        from affectlens.evaluation.backends.in_process import Transformers

        return Transformers(self.model).generate(prompts, specs, pack, settings, lambda _n: None)


@dataclass(frozen=True, eq=False)
class RayWorkers:
    """Workers that are there.

    Attributes:
        ray: The module, connected.
        workers: Handles of `Writer`.
    """

    ray: Any
    workers: Sequence[Any]

    def generate(
        self,
        prompts: Sequence[Ids],
        specs: Sequence[Any],
        pack: SteeringPack | None,
        settings: GenerationSettings,
        advance: Advance,
    ) -> list[Ids]:
        """See `Backend.generate`; who wrote a reply makes no difference to its seed.

        Raises:
            AffectLensError: As a worker raised it, or if workers are lost again and again.
        """
        size = max(LEAST, -(-len(prompts) // (PARTS * len(self.workers))))
        held = None if pack is None else self.ray.put(pack)
        waiting = list(range(0, len(prompts), size))[::-1]
        idle, calls = list(self.workers), dict[Any, tuple[Any, int]]()
        found: list[Ids] = [()] * len(prompts)
        try:
            while waiting or calls:
                while waiting and idle:
                    start, worker = waiting.pop(), idle.pop()
                    part = slice(start, start + size)
                    seeded = replace(settings, seed=settings.seed + start)
                    call = worker.generate.remote(prompts[part], specs[part], held, seeded)
                    calls[call] = worker, start
                (done, *_), _ = self.ray.wait(list(calls), num_returns=1)
                worker, start = calls.pop(done)
                replies = result_of(self.ray, done)
                found[start : start + len(replies)] = replies
                idle.append(worker)
                advance(len(replies))
        except self.ray.exceptions.RayError as error:
            raise lost_too_often("writing replies") from error
        finally:
            for call in calls:
                self.ray.cancel(call, force=False)
        return found


@contextmanager
def open_ray(request: BackendRequest) -> Generator[RayWorkers]:
    """Workers on the cluster that this process is connected to, that is named, or of its own.

    Raises:
        ModelError: If Ray is not installed.
        AffectLensError: If there is no cluster at the address.
    """
    from affectlens.activations.distributed.actor import Source
    from affectlens.activations.distributed.ray_cluster import Share, connected, import_ray

    ray, model = import_ray(), request.model
    with connected(ray, request.url):
        gpus = int(ray.cluster_resources().get("GPU", 0))
        count = request.workers or gpus or WORKERS
        share = Share.of(ray, count, threads=None, gpus=None, device=model.device.type)
        options = ray.remote(Writer).options(
            num_cpus=share.threads,
            num_gpus=share.gpus,
            max_restarts=LIVES,
            max_task_retries=-1,  # as long as its worker can be started anew
        )
        source = replace(Source.of(model, None, None), name=request.source)
        workers = [options.remote(source, model.fingerprint, share.threads) for _ in range(count)]
        try:
            yield RayWorkers(ray, _placed(ray, workers, str(share)))
        finally:
            for worker in workers:
                ray.kill(worker)


def _placed(ray: Any, workers: Sequence[Any], needs: str) -> list[Any]:
    """The workers that the cluster has a place for; work given to others would wait for ever."""
    calls = {worker.ready.remote(): worker for worker in workers}
    done, missing = ray.wait(list(calls), num_returns=len(calls), timeout=PATIENCE)
    if missing:
        logger.warning(
            "The cluster has a place for %d of %d workers, which need %s each; %s.",
            len(done), len(workers), needs, "going on with these" if done else "waiting for one",
        )  # fmt: skip
    if not done:
        done, _ = ray.wait(missing, num_returns=1)
    return [calls[call] for call in done]


RAY = BackendKind(
    "ray", "our own generation, by processes of a Ray cluster", open_ray, has_address=True
)
