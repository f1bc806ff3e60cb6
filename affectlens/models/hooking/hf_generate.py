"""Where prompts end in calls of Transformers' ``generate``, told by that call itself.

The passes of a generation do not say it: drafts are verified several tokens at a time, long prompts
come in chunks, and without a cache everything is passed again. What ``generate`` was given does.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any

from torch import Tensor

from affectlens.models.hooking.scopes import Shared


class GenerateCall:
    """One call of ``generate``, or of one inside it by which a model drafts for itself.

    Attributes:
        columns: Tokens of its prompts, padding included; the same for all rows.
        lengths: Tokens of each prompt without padding, once somebody knows them.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lengths: tuple[int, ...] | None = None
        self._begun = False
        self._cache: Callable[[], Any] = lambda: None

    def owns(self, cache: Any, columns: int, *, aside: bool) -> bool:
        """Whether a pass continues the prompts; if not, it is a side text (of a guidance, say).

        Args:
            cache: Keys and values the pass was given.
            columns: Tokens that they hold and the pass brings.
            aside: Whether the cache is known to be of another text.
        """
        if not self._begun:
            self._begun = True
            self._cache = (lambda: None) if cache is None else weakref.ref(cache)
            return True
        if cache is None:
            return self._cache() is None and columns >= self.columns
        # Some ways of decoding work on copies of the cache.
        return cache is self._cache() or (columns > self.columns and not aside)


_CALLS: ContextVar[tuple[tuple[Any, GenerateCall], ...]] = ContextVar("calls", default=())


def current_call(hf: Any) -> GenerateCall | None:
    """The call of this model's ``generate`` in which the code that asks runs, if any."""
    return next((call for model, call in reversed(_CALLS.get()) if model is hf), None)


def runs_unannounced(hf: Any) -> bool:
    """Whether a ``generate`` of this model is running that was looked up before `announcing`."""
    method = inspect.unwrap(getattr(type(hf), "generate", None) or _nothing)
    code, frame = method.__code__, inspect.currentframe()
    while frame is not None:
        if frame.f_code is code and frame.f_locals.get("self") is hf:
            return True
        frame = frame.f_back
    return False


def _nothing() -> None: ...


class _Announced:
    """Stands in for a model's ``generate``. A copy of the model gets that method of its own."""

    def __init__(self, hf: Any) -> None:
        self._plain = hf.generate
        self._hf = weakref.ref(hf)
        self.__self__ = hf  # as a method has it
        functools.update_wrapper(self, self._plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hf = self._hf()
        outer = None if hf is None else current_call(hf)
        # A model that drafts for itself is given what it has generated so far as a prompt.
        columns = _columns(args, kwargs) if outer is None else outer.columns
        before = _CALLS.get()
        _CALLS.set((*before, (hf, GenerateCall(columns))))
        try:
            return self._plain(*args, **kwargs)
        finally:
            _CALLS.set(before)

    def __deepcopy__(self, memo: Mapping[int, Any]) -> Any:
        hf = self._hf()
        copied = memo.get(id(hf))
        if copied is None:
            return self._plain
        return types.MethodType(getattr(self._plain, "__func__", type(copied).generate), copied)


def _columns(args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """How many tokens, padding included, the prompts of a call have."""
    named = ("inputs", "input_ids", "inputs_embeds", "attention_mask")
    given: list[Any] = [*args[:1], *(kwargs.get(name) for name in named)]
    widths = [int(x.shape[1]) for x in given if isinstance(x, Tensor) and x.ndim > 1]
    return max(widths, default=1)  # nothing: generation from the first token


_LOCK = RLock()
_SHARED: weakref.WeakKeyDictionary[Any, Shared] = weakref.WeakKeyDictionary()


@contextmanager
def announcing(hf: Any) -> Generator[None, None, None]:
    """While it is open, `current_call` knows the calls of this model's ``generate``."""
    if not callable(getattr(hf, "generate", None)):
        yield
        return
    with _LOCK:
        if hf not in _SHARED:
            model = weakref.ref(hf)
            _SHARED[hf] = Shared(lambda: _announce(model()))
        shared = _SHARED[hf]
    with shared():
        yield


def _announce(hf: Any) -> Callable[[], object]:
    own = vars(hf).get("generate")
    announced = _Announced(hf)
    vars(hf)["generate"] = announced
    model = weakref.ref(hf)

    def undo() -> None:
        attributes = vars(model() or _Nobody())
        if attributes.get("generate") is announced:
            del attributes["generate"]
            if own is not None:
                attributes["generate"] = own

    return undo


class _Nobody: ...
