"""Threads that are given the model itself to run inside a block are in that block.

Python gives a new thread an empty context, so a function of one's own starts outside of every
block: it asks for nothing. But the usual way to stream a reply hands ``generate`` itself to a
thread (``Thread(target=model.hf.generate, ...)``), and whoever does that inside a block means that
block. So while one is open, threads and tasks of thread pools that are started in it and whose
target is the model, one of its methods, or a pipeline around it, carry a copy of the context they
were started in. All others start as ever.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from affectlens.models.generation.listeners import heard_models
from affectlens.models.hooking.scopes import Shared


def _change() -> Callable[[], object]:
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_inside(self: threading.Thread) -> None:
        if not _runs_a_model(getattr(self, "_target", None)):
            start(self)
            return
        context, run = copy_context(), self.run

        def carried() -> None:
            nonlocal context
            inside, context = context, None
            del self.run  # type: ignore[method-assign]
            assert inside is not None
            inside.run(run)

        self.run = carried  # type: ignore[method-assign]
        try:
            start(self)
        except BaseException:
            vars(self).pop("run", None)
            raise

    def submit_inside(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        if not _runs_a_model(fn):
            return submit(self, fn, *args, **kwargs)
        return submit(self, copy_context().run, fn, *args, **kwargs)

    threading.Thread.start = start_inside  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_inside  # type: ignore[method-assign]

    def undo() -> None:
        # Whoever put something of theirs in front keeps it; ours does nothing outside of blocks.
        if threading.Thread.start is start_inside:
            threading.Thread.start = start  # type: ignore[method-assign]
        if ThreadPoolExecutor.submit is submit_inside:
            ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]

    return undo


def _runs_a_model(target: Any) -> bool:
    """Whether what a thread is to call belongs to a model that is listened to here."""
    while isinstance(target, functools.partial):
        target = target.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    owner = getattr(target, "__self__", target)
    # A `LanguageModel` keeps it as hf, a pipeline as model, a compiled model as _orig_mod.
    parts = (owner, *(getattr(owner, name, None) for name in ("hf", "model", "_orig_mod")))
    return any(part is model for part in parts for model in heard_models())


carried_into_threads = Shared(_change)
"""While it is open, threads that are given a model inside a block of that model are inside it."""
