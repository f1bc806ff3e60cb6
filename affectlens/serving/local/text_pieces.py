"""Text of a reply, token by token, up to the first stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"
"""What a decoder writes for half a character."""


class TextPieces:
    """Decodes a reply as it grows.

    All pieces together are what the decoder makes of all tokens, up to a stop string.

    Args:
        decode: Text of token ids.
        stop: Strings that end the reply; none of them is part of it.
        least: No string ends it before more tokens than these.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), least: int = 0
    ) -> None:
        self._decode, self._stop, self._least = decode, tuple(stop), least
        self._ids: list[int] = []
        # Tokens before `_from` have been said and no longer matter; those before `_said` have been
        # said, but a decoder needs them to know whether a space comes next.
        self._from = self._said = 0
        self._text = ""
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that a token completes."""
        self._ids.append(token)
        before = self._decode(self._ids[self._from : self._said])
        now = self._decode(self._ids[self._from :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._from, self._said = self._said, len(self._ids)
        return self._passed_on(now[len(before) :])

    def end(self) -> str:
        """What is left when no more tokens come."""
        if self.stopped:
            return ""
        whole = self._decode(self._ids)
        rest = whole[len(self._text) :] if whole.startswith(self._text) else ""
        last = self._passed_on(rest)
        last, self._held = last + self._held, ""
        return last

    def _passed_on(self, text: str) -> str:
        """Text that no stop string can begin in any more."""
        self._text += text
        if not self._stop:
            return text
        held = self._held + text
        ends = self._stop if len(self._ids) > self._least else ()
        found = [at for one in ends if (at := held.find(one)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max(_overlap(held, one) for one in self._stop)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that a stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
