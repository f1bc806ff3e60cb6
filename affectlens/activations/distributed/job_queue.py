"""Ray actors that work through numbered jobs: who does what, and what has to be done again.

Nothing here knows what a job is. An actor is opened once and then has a method
``work(number)``, which is called twice at a time: while one call writes its result, the next can
already compute.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from affectlens.core.errors import AffectLensError

AT_ONCE = 2
"""Calls under way per actor."""
LIVES = 3
"""Actors that a job may end before it is given up."""
PATIENCE = 60.0
"""Seconds without any actor after which the log says what is being waited for."""
_GOODBYE = 20.0  # seconds for an actor to end after it was killed

logger = logging.getLogger(__name__)


class Crew:
    """Actors that do jobs.

    Args:
        ray: The module.
        hire: Starts an actor; gives its handle and its call of ``open``.
        needs: What an actor waits for, in words.
    """

    def __init__(self, ray: Any, hire: Callable[[], tuple[Any, Any]], needs: str) -> None:
        self._ray, self._hire, self._needs = ray, hire, needs
        self._calls: dict[Any, tuple[Any, int | None]] = {}
        self._actors = list[Any]()
        self._strikes: Counter[int | None] = Counter()
        self._waiting: deque[int] = deque()

    def run(
        self,
        jobs: Iterable[int],
        *,
        workers: int,
        done: Callable[[int], object],
        name: Callable[[int], str],
    ) -> None:
        """Do every job once; those of an actor that died are done again by another.

        Args:
            jobs: Numbers.
            workers: Actors at a time.
            done: Told of every job that is finished.
            name: What to call a job in a message.

        Raises:
            AffectLensError: What an actor raises, or if a job ended three actors.
        """
        self._waiting.extend(jobs)
        try:
            for _ in range(min(workers, len(self._waiting))):
                self._start()
            while self._waiting or any(job is not None for _, job in self._calls.values()):
                for call in self._ready():
                    actor, job = self._calls.pop(call)
                    if not self._ended_well(call, actor, job, name):
                        continue
                    if job is not None:
                        done(job)
                    if actor in self._actors:
                        self._give(actor)
        finally:
            self.stop()

    def stop(self) -> None:
        """End all actors, and wait until they have ended: none may write behind our back."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._calls:
            self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=_GOODBYE)
        self._actors.clear()
        self._calls.clear()

    def _start(self) -> None:
        actor, opening = self._hire()
        self._actors.append(actor)
        self._calls[opening] = (actor, None)

    def _give(self, actor: Any) -> None:
        """Fill up an actor's hands; a job that once ended an actor has one to itself."""
        while self._waiting:
            held = [job for other, job in self._calls.values() if other is actor]
            suspect = any(self._strikes[job] for job in (*held, self._waiting[0]))
            if len(held) >= (1 if suspect else AT_ONCE):
                return
            job = self._waiting.popleft()
            self._calls[actor.work.remote(job)] = (actor, job)

    def _ready(self) -> list[Any]:
        calls = list(self._calls)
        idle = all(job is None for _, job in self._calls.values())
        ready, _ = self._ray.wait(calls, num_returns=1, timeout=PATIENCE if idle else None)
        if not ready:
            logger.warning("No Ray worker is ready yet; each needs %s.", self._needs)
        return ready

    def _ended_well(
        self, call: Any, actor: Any, job: int | None, name: Callable[[int], str]
    ) -> bool:
        """Whether a call came to its end; if its actor died, another takes over."""
        try:
            result_of(self._ray, call)
        except self._ray.exceptions.RayError as error:
            if actor in self._actors:  # its first call to be missed
                logger.warning("A Ray worker was lost (%s); another follows.", first_line(error))
                self._actors.remove(actor)
                self._ray.kill(actor)  # it may only be out of reach
                self._start()
            self._again(job, name)
            return False
        return True

    def _again(self, job: int | None, name: Callable[[int], str]) -> None:
        self._strikes[job] += 1
        if self._strikes[job] == LIVES:
            raise lost_too_often("starting" if job is None else name(job))
        if job is not None:
            self._waiting.appendleft(job)


def result_of(ray: Any, call: Any) -> Any:
    """What a call returned.

    Raises:
        AffectLensError: As the actor raised it.
        ray.exceptions.RayError: If the actor or its machine was lost.
    """
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        # Ray's own error carries the actor's traceback as its text.
        cause: Any = error.cause
        if isinstance(cause, AffectLensError):
            raise cause from None
        raise RuntimeError(f"a Ray worker failed: {type(cause).__name__}: {cause}") from error


def lost_too_often(what: str) -> AffectLensError:
    """The error for work that no actor survives."""
    return AffectLensError(
        f"{LIVES} Ray workers were lost at {what}, most likely for want of memory; use fewer "
        "workers or smaller batches, and go on with the same command."
    )


def first_line(error: BaseException) -> str:
    """What Ray says first of an error; the rest is for its developers."""
    return str(error).strip().partition("\n")[0].rstrip(".")
