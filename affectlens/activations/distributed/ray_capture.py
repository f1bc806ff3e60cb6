"""Capture spread over Ray actors: a model each, all writing shards of one store.

One process plans and holds the store's lock; the actors get shard after shard. A shard is a file of
its own that appears whole or not at all, so an actor that dies takes nothing with it but the shards
in its hands, and those are run again. The store is, byte for byte, the one that a single process
with as many threads writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from affectlens.activations.capture import Sites, as_cut_before
from affectlens.activations.distributed.actor import (
    Actor,
    CaptureRequest,
    Source,
    Work,
    plan_work,
)
from affectlens.activations.distributed.job_queue import (
    AT_ONCE,
    LIVES,
    Crew,
    first_line,
    lost_too_often,
    result_of,
)
from affectlens.activations.distributed.ray_cluster import Share, connected, import_ray
from affectlens.activations.distributed.settings import RayOptions, RaySettings
from affectlens.activations.forward.run import Advance
from affectlens.activations.store.store import ActivationStore
from affectlens.activations.store.writer import opened_for_writing
from affectlens.core.progress import progress
from affectlens.core.settings import from_options
from affectlens.datasets.schema import Corpus
from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)


def capture_with_ray(
    model: LanguageModel | str | Path,
    corpus: Corpus,
    *,
    out: str | Path,
    sites: Sites = "resid_post",
    positions: str | Iterable[str] | None = None,
    resume: bool = True,
    force: bool = False,
    advance: Advance = lambda _texts, _tokens: None,
    **options: Unpack[RayOptions],
) -> ActivationStore:
    """Capture with several processes, on this machine or on a cluster.

    Args:
        model: Name, hub id, folder or GGUF file, which every actor loads for itself. A loaded model
            does as well, if the name it was loaded by means the same weights everywhere.
        corpus: Records.
        out: Folder that all machines share, or a URL.
        sites, positions, resume, force: As `affectlens.activations.capture`.
        advance: Told of every shard: how many texts and tokens.
        **options: The fields of `affectlens.activations.distributed.settings.RaySettings`: those of
            `affectlens.activations.capture`, and ``workers``, ``address``, ``threads``, ``gpus``,
            ``device``, ``model_dtype``.

    Raises:
        AffectLensError: As `affectlens.activations.capture`; also if Ray is not installed, if there
            is no such cluster, if an actor loads other weights, or if a shard ends three actors.
    """
    settings = from_options(RaySettings, options, "capture_with_ray")
    ray = import_ray()
    place = str(out) if "://" in str(out) else str(Path(out).absolute())
    if resume:
        settings = as_cut_before(settings, place)
    with connected(ray, settings.address):
        source = Source.of(model, settings.device, settings.model_dtype)
        share = Share.of(
            ray,
            settings.workers,
            threads=settings.threads,
            gpus=settings.gpus,
            device=source.device,
        )
        team = _Team(ray, source, share, place)
        try:
            team.start(settings.workers)
            request = CaptureRequest(corpus, sites, positions, settings)
            work = team.plan(model if isinstance(model, LanguageModel) else None, request)
            plan, n = work.plan, len(work.spec.shards)
            with opened_for_writing(
                place, work.spec, plan.table(), resume=resume, force=force
            ) as session:
                todo = [shard for shard in range(n) if shard not in session.done]
                total = sum(plan.shard_tokens(shard) for shard in todo)
                with progress("Reading activations", total, unit="tokens") as show:

                    def done(shard: int) -> None:
                        texts = sum(len(plan.batches[i]) for i in plan.shards[shard])
                        show(plan.shard_tokens(shard))
                        advance(texts, plan.shard_tokens(shard))

                    crew = Crew(ray, team.hire, needs=str(share))
                    crew.run(
                        todo,
                        workers=settings.workers,
                        done=done,
                        name=lambda i: f"shard {i} of {n}",
                    )
                session.finish()
                return ActivationStore.open(session.folder)
        finally:
            team.dismiss()


class _Team:
    """Starts actors, and lets one of them plan if no model is loaded here.

    Args:
        ray: The module, connected.
        source: What they load.
        share: What each gets of the machines.
        place: Of the store.
    """

    def __init__(self, ray: Any, source: Source, share: Share, place: str) -> None:
        self._ray, self._source, self._share, self._place = ray, source, share, place
        self._class = ray.remote(Actor).options(
            num_cpus=share.threads, num_gpus=share.gpus, max_concurrency=AT_ONCE
        )
        self._idle = list[Any]()
        self._work: Any = None

    def start(self, workers: int) -> None:
        """Start actors; they load the model while the capture is planned."""
        self._idle += [self._new() for _ in range(workers)]

    def plan(self, model: LanguageModel | None, request: CaptureRequest) -> Work:
        """Plan the capture and keep the plan where every actor can read it."""
        work = self._planned(request) if model is None else plan_work(model, request)
        # Held by this process: an actor's machine may be lost, and what it holds with it.
        self._work = self._ray.put(work)
        return work

    def _planned(self, request: CaptureRequest) -> Work:
        for _ in range(LIVES):
            planner = self._idle[-1]
            try:
                return result_of(self._ray, planner.plan.remote(request))
            except self._ray.exceptions.RayError as error:
                logger.warning("A Ray worker was lost (%s); another follows.", first_line(error))
                self._idle[-1] = self._new()
        raise lost_too_often("planning")

    def hire(self) -> tuple[Any, Any]:
        """An actor, and its call of ``open``; first those that have their model already."""
        actor = self._idle.pop() if self._idle else self._new()
        return actor, actor.open.remote(self._work, self._place)

    def dismiss(self) -> None:
        """End the actors that were never hired."""
        for actor in self._idle:
            self._ray.kill(actor)

    def _new(self) -> Any:
        actor = self._class.remote(self._source, self._share.threads)
        actor.load.remote()
        return actor
