"""Hooks that belong to a block of code, and to nobody else.

A hook on a module sees every call of it, from whatever thread. Here a hook asks first whether the
call comes from the block that opened it: from the same context (in the sense of `contextvars`),
from an asyncio task made in it, or from a thread that was given the model in it (`threads`).

What a *lasting* block holds is taken back when nobody is left in it: at its end, or later, when the
last such thread or task has ended. So a reply that is being streamed is steered to its end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any

from torch import nn


class Scope:
    """Names a block without keeping it alive.

    Attributes:
        over: Whether nobody counts as inside any more, whatever contexts say.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False

    def __call__(self) -> bool:
        """Whether the code that asks runs inside."""
        return not self.over and any(member.scope is self for member in _INSIDE.get())


class _Member:
    """Held by contexts alone: once the last one lets go, nobody is inside."""

    __slots__ = ("__weakref__", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


_INSIDE: ContextVar[tuple[_Member, ...]] = ContextVar("inside", default=())


@contextmanager
def opened(*, lasting: bool = False) -> Generator[tuple[Scope, ExitStack], None, None]:
    """Open a scope.

    Args:
        lasting: Whether those that were started inside stay inside when the block ends.

    Yields:
        The scope, and what is undone when it is over.
    """
    scope, stack = Scope(), ExitStack()
    member = _Member(scope)
    over = weakref.finalize(member, stack.close)
    over.atexit = False
    _INSIDE.set((*_INSIDE.get(), member))
    del member  # no frame may hold it: a traceback would keep the hooks
    try:
        yield scope, stack
    finally:
        if not scope() or not lasting:  # not inside: left in another context than it was entered in
            scope.over = True
        _INSIDE.set(tuple(member for member in _INSIDE.get() if member.scope is not scope))
        if scope.over:
            over()


_STANDS_FOR = "_affectlens_stands_for"


def stand_in(copies: nn.Module, originals: nn.Module) -> None:
    """Let a copy of a module tree be hooked as the tree it was copied from.

    For libraries that run a copy in the model's place, while the model is kept alive.
    """
    of = dict(originals.named_modules(remove_duplicate=False))
    for name, module in copies.named_modules(remove_duplicate=False):
        if name in of:
            vars(module)[_STANDS_FOR] = id(of[name])


def owned(module: nn.Module, scope: Scope, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that runs inside a scope only, and on this module only, not on copies of it.

    A copy that stands for it (`stand_in`) counts as the module itself.
    """
    owner = weakref.ref(module)

    def run(called: nn.Module, *given: Any) -> Any:
        mine = called is owner() or vars(called).get(_STANDS_FOR) == id(owner())
        return hook(called, *given) if mine and scope() else None

    return run


class Shared:
    """A change that is one for many: made for the first who needs it, undone after the last.

    Args:
        change: Makes it, and gives back what undoes it.
    """

    def __init__(self, change: Callable[[], Callable[[], object]]) -> None:
        self._change = change
        self._lock = RLock()
        self._users = 0
        self._undo: Callable[[], object] = lambda: None

    def __call__(self) -> AbstractContextManager[None]:
        """Have the change made inside a block."""
        return self._held()

    @contextmanager
    def _held(self) -> Generator[None, None, None]:
        with self._lock:
            if self._users == 0:
                self._undo = self._change()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._undo()
