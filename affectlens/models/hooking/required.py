"""Hooks that must run.

A hook on a module that the model never calls reads nothing and changes nothing, and nobody is told.
So whoever sets hooks for a block of code has them counted here: when the first forward pass that
began inside the block has ended, each of them has run, or the pass ends in an error that names
those that have not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from threading import get_ident
from typing import Any, TypeVar

from affectlens.core.errors import ModelError
from affectlens.models.anatomy.anatomy import Anatomy
from affectlens.models.hooking.scopes import Scope, owned

_Hook = TypeVar("_Hook", bound=Callable[..., Any])


class Required:
    """Knows which hooks have run. Made by `required_hooks`."""

    def __init__(self, family: str) -> None:
        self.family = family
        self._waiting: dict[int, str] = {}  # by order of registration
        self._count = 0
        self._begun: set[int] = set()  # threads in a pass that began inside the block

    def __call__(self, name: str, hook: _Hook) -> _Hook:
        """The same hook, counted: it must run in the first pass.

        Args:
            name: What the hook reads or changes, for the message.
            hook: Whatever is called in a forward pass.
        """
        key, self._count = self._count, self._count + 1
        self._waiting[key] = name

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._waiting:
                self._waiting.pop(key, None)
            return hook(*args, **kwargs)

        return counted  # pyright: ignore[reportReturnType]

    def begin(self, *_: Any) -> None:
        """Hook before the model: a pass begins."""
        self._begun.add(get_ident())

    def end(self, *_: Any) -> None:
        """Hook after the model, not called when the pass failed.

        Raises:
            ModelError: As `check`. Not for a pass that began outside: it has missed hooks rightly.
        """
        if get_ident() in self._begun:
            self.check()

    def check(self) -> None:
        """Refuse hooks that have not run; a pass has just ended or was stopped after all of them.

        Raises:
            ModelError: If there are any.
        """
        names = sorted(set(self._waiting.values()))
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"This {self.family} ended a forward pass and never ran {', '.join(names[:3])}"
                f"{more}, so nothing could be read or changed there; leave that out, or use "
                "another model."
            )


def required_hooks(anatomy: Anatomy, scope: Scope, held: ExitStack) -> Required:
    """Give hooks to the `Required` of a scope, and those that never run are an error.

    ``must = required_hooks(...); module.register_forward_hook(must("its name", hook))``.

    Passes that end in an exception are not looked at, nor is a scope without a pass. Passes of
    other models, of other threads and of single blocks do no harm.

    Args:
        anatomy: The model.
        scope: Whose passes count.
        held: Takes back what is set here when it is closed.
    """
    must = Required(anatomy.family)
    # The base ends before the model does, and may be called alone.
    for module in dict.fromkeys((anatomy.base, anatomy.model)):
        begin, end = owned(module, scope, must.begin), owned(module, scope, must.end)
        held.callback(module.register_forward_pre_hook(begin, prepend=True).remove)
        held.callback(module.register_forward_hook(end).remove)
    return must
