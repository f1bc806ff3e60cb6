"""How a generation loop and whoever hooks the model agree on which rows a forward pass holds.

The loop sorts prompts, shares the work of equal ones and drops finished rows, so a hook cannot tell
from a tensor whose rows it sees. It listens instead: the loop announces the rows before each
forward pass, and asks first how much of a prompt the listener leaves alone. A capture announces its
texts likewise, and names the listeners in what it keeps.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from affectlens.core.errors import DataError


class Listener(Protocol):
    """Somebody who changes or reads the model while it generates."""

    def untouched(self, row: int, length: int) -> int:
        """How many leading tokens of a prompt run exactly as without the listener.

        Args:
            row: Index in the caller's list of prompts.
            length: Of that prompt, in tokens.
        """
        ...

    def announce(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Say which prompts (or texts) the rows of coming passes belong to; none: it is over.

        Args:
            rows: For each row of the batch, an index in the caller's list of prompts.
            lengths: For each row, the length of its prompt, in tokens.
        """
        ...

    def identity(self, rows: int) -> Mapping[str, Any]:
        """What tells results made under it from others, as JSON.

        Args:
            rows: How many prompts or texts there are.

        Raises:
            DataError: If it cannot serve so many.
        """
        ...


_LISTENERS: ContextVar[tuple[tuple[Any, Listener], ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(hf: Any, listener: Listener) -> Generator[None, None, None]:
    """Let a listener know of everything that generates with this Hugging Face model inside."""
    _LISTENERS.set((*_LISTENERS.get(), (hf, listener)))
    try:
        yield
    finally:  # not by a token: the block may be left in another context than it was entered in
        left = [pair for pair in _LISTENERS.get() if pair[1] is not listener]
        _LISTENERS.set(tuple(left))


def listeners(hf: Any) -> tuple[Listener, ...]:
    """Who listens to this model here, outermost first."""
    return tuple(listener for model, listener in _LISTENERS.get() if model is hf)


def heard_models() -> tuple[Any, ...]:
    """The models that somebody listens to here."""
    return tuple(model for model, _ in _LISTENERS.get())


@contextmanager
def announced(hf: Any, rows: Sequence[int], lengths: Sequence[int]) -> Generator[None, None, None]:
    """Tell listeners whose rows the passes of a block hold; see `Listener.announce`."""
    heard = listeners(hf)
    try:
        for one in heard:
            one.announce(rows, lengths)
        yield
    finally:
        for one in heard:
            one.announce((), ())


def refuse_listeners(hf: Any, what: str) -> None:
    """Refuse to measure a model that somebody changes.

    Args:
        hf: The model.
        what: What is being measured, to begin a sentence with.

    Raises:
        DataError: If somebody listens.
    """
    if listeners(hf):
        raise DataError(
            f"{what} must be of the model as it is, and this one is being steered; call it outside "
            "the steering block."
        )
