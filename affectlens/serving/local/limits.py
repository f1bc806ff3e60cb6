"""How much the local server takes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from affectlens.core import AffectLensError, DataError


class Busy(AffectLensError):
    """More is asked for than may wait."""


@dataclass(frozen=True)
class EngineLimits:
    """What the engine does at once, and how long texts may be.

    Attributes:
        rows: Replies that are written at once.
        waiting: Replies that may wait for a place.
        replies: Replies that one request may ask for (``n`` times prompts).
        length: Tokens of prompt and reply; default: the model's context, at most 4,096.
        reply: Tokens of the longest reply; what a chat gets that does not say.
        cache_bytes: Most that keys and values of all replies may take; a reply that does not fit
            beside others waits.
    """

    rows: int = 16
    waiting: int = 64
    replies: int = 16
    length: int | None = None
    reply: int = 512
    cache_bytes: int = 2**30

    def __post_init__(self) -> None:
        for name in ("rows", "waiting", "replies", "length", "reply", "cache_bytes"):
            value: Any = getattr(self, name)
            if name == "length" and value is None:
                continue
            lowest = 0 if name == "waiting" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise DataError(f"{name} must be a whole number from {lowest}, not {value!r}.")

    def longest(self, context: int) -> int:
        """Tokens of prompt and reply, for a model of some context length."""
        return min(context, 4096 if self.length is None else self.length)
