"""The thread that owns the model: it writes replies, and does small jobs between two steps."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from affectlens.core import DataError, ModelError
from affectlens.serving.local.generation import Failed, Generation, Piece, Push
from affectlens.serving.local.limits import Busy, EngineLimits
from affectlens.serving.local.row import Row
from affectlens.serving.local.scheduler import Scheduler

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Ticket:
    """A reply that was asked for."""

    row: Row

    def cancel(self) -> None:
        """Nobody wants it any more; its place is free at the next step."""
        self.row.cancelled = True


class Engine:
    """Writes replies with one model; a context manager that starts and stops its thread.

    Other threads may use the model while it runs; they see it as it is, unsteered. Who wants to
    change it or to have the processor for himself gives `run` a job.

    Attributes:
        model: The model.
        limits: See `EngineLimits`.
        longest: Tokens of prompt and reply together.

    Args:
        model: Any that `generate` takes.
        limits: Default: `EngineLimits()`.
    """

    def __init__(self, model: LanguageModel, limits: EngineLimits | None = None) -> None:
        self.model, self.limits = model, limits or EngineLimits()
        self.longest = self.limits.longest(model.context_length)
        self._scheduler = Scheduler(model, self.limits)
        self._todo: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[str, Row] = {}
        self._users: Counter[str] = Counter()
        self._names = count()
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="affectlens-engine", daemon=True)
        backend: Any = model.tokenizer
        self._rust: Any = backend.backend_tokenizer

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._todo.put(lambda: None)
        self._thread.join()

    def submit(self, wanted: Sequence[tuple[Generation, Push]]) -> list[Ticket]:
        """Ask for replies; all of them are taken, or none.

        Args:
            wanted: What to write, and who is told of it on the engine's thread.

        Raises:
            DataError: If a prompt is empty, too long with its reply, or holds no tokens of the
                model.
            Busy: If too many wait.
            ModelError: If the engine is being stopped.
        """
        for asked, _ in wanted:
            self._check(asked)
        with self._lock:
            if self._stopping:
                raise ModelError("The server is being stopped.")
            most = self.limits.rows + self.limits.waiting
            if len(self._open) + len(wanted) > most:
                raise Busy(
                    f"{len(self._open)} replies are being written or wait, and {len(wanted)} more "
                    f"are above the {most} this server takes; try again in a moment."
                )
            rows = [self._opened(asked, push) for asked, push in wanted]
        for row in rows:
            self._todo.put(lambda row=row: self._scheduler.add(row))
        return [Ticket(row) for row in rows]

    def run(self, job: Callable[[], T]) -> Future[T]:
        """Do something with the model between two steps, on the engine's thread.

        Inside, the model is as it was loaded: nothing that is being served steers or reads there.
        Replies wait meanwhile.

        Args:
            job: What to do.
        """
        done: Future[T] = Future()

        def work() -> None:
            if not done.set_running_or_notify_cancel():
                return
            self._scheduler.passes.pause()
            try:
                done.set_result(Context().run(job))
            except BaseException as error:  # whoever waits for it has to know
                done.set_exception(error)

        with self._lock:
            if self._stopping:
                done.set_exception(ModelError("The server is being stopped."))
                return done
            self._todo.put(work)
        return done

    def users(self, pack: str) -> int:
        """How many replies that are not finished use a pack, by the name clients gave."""
        with self._lock:
            return self._users[pack]

    def state(self) -> dict[str, Any]:
        """Figures for people and for metrics."""
        scheduler, passes = self._scheduler, self._scheduler.passes
        with self._lock:
            open_ = len(self._open)
        running = len(scheduler.running)
        return {
            "running": running,
            "waiting": max(0, open_ - running),
            "steps": scheduler.steps,
            "tokens": scheduler.generated,
            "steered_tokens": passes.steered_tokens,
            "slots_in_use": passes.slots_in_use,
            "slots": self.limits.rows,
            "shares_passes": scheduler.shares,
        }

    def _check(self, asked: Generation) -> None:
        length, new = len(asked.prompt), asked.settings.max_new_tokens
        if new > self.limits.reply:
            raise DataError(
                f"Replies of this server have up to {self.limits.reply} tokens, and {new} are "
                "asked for."
            )
        if not 0 < length <= self.longest - new:
            raise DataError(
                f"The prompt has {length} tokens; with a reply of up to {new} this server takes 1 "
                f"to {self.longest - new}."
            )
        self.model.encode_batch([asked.prompt])

    def _opened(self, asked: Generation, push: Push) -> Row:
        name = f"reply-{next(self._names)}"
        pack = "" if asked.steered is None else asked.steered.name

        def told(event: Piece | Failed) -> None:
            if isinstance(event, Failed) or event.finish:
                self._closed(name, pack)
            try:
                push(event)
            except Exception:  # whoever listens no more frees the place, too
                self._closed(name, pack)
                raise

        row = Row(name, asked, told, self._decode, self.model.eos_ids)
        self._open[name] = row
        self._users[pack] += 1
        return row

    def _closed(self, name: str, pack: str) -> None:
        with self._lock:
            if self._open.pop(name, None) is not None:
                self._users[pack] -= 1

    def _decode(self, ids: Sequence[int]) -> str:
        return self._rust.decode(list(ids), skip_special_tokens=True) if ids else ""

    def _main(self) -> None:
        scheduler = self._scheduler
        while True:
            self._do_what_waits(wait=not scheduler.busy)
            if self._stopping:
                break
            if not scheduler.busy:
                continue
            try:
                with torch.inference_mode():
                    scheduler.turn()
            except Exception as error:  # memory that ran out, say: those who wait must be told
                logger.exception("A step failed; all replies under way are given up.")
                with torch.inference_mode():
                    scheduler.give_up(error)
            self._forget_cancelled()
        self._do_what_waits(wait=False)
        with torch.inference_mode():
            scheduler.give_up(ModelError("The server is being stopped."))
            scheduler.close()

    def _do_what_waits(self, *, wait: bool) -> None:
        try:
            self._todo.get(block=wait)()
            while True:
                self._todo.get_nowait()()
        except Empty:
            return

    def _forget_cancelled(self) -> None:
        """Replies that were cancelled say nothing more, so they are closed here."""
        with self._lock:
            gone = [(n, row) for n, row in self._open.items() if row.cancelled and row.over]
        for name, row in gone:
            self._closed(name, row.asked.steered.name if row.asked.steered else "")
