"""Calls from the front end to every worker: answered with a value or a sentence, never an error.

An error in one of several workers would leave the answers of the others unread in vLLM's queues,
and the next call would read them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from affectlens.core import AffectLensError

REFUSED = "refused"


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """A worker's method as the front end calls it: ``{"refused": sentence}`` instead of raising."""

    @functools.wraps(method)
    def call(*args: Any) -> Any:
        try:
            return method(*args)
        except AffectLensError as error:
            return {REFUSED: str(error)}
        except Exception as error:  # whatever it is, the engine lives on
            return {REFUSED: f"{type(error).__name__}: {error}"}

    return call


def refusal(answers: Sequence[Any]) -> str | None:
    """The first sentence among the workers' answers; None if all of them did it."""
    for answer in answers:
        if isinstance(answer, dict) and REFUSED in answer:
            return str(answer[REFUSED])
    return None
