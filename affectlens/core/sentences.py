"""Where a sentence ends."""

from __future__ import annotations

import re

_CLOSING = "\"'”’»)]*"
_STOP = re.compile(rf"[.!?…。！？]+[{re.escape(_CLOSING)}]*")
_SHORT = frozenset({"mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e"})
_LAST_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*$")


def first_sentence_end(text: str) -> int:
    """Where the first sentence of a text ends, its closing quotes included.

    A sentence ends at a line break, or at ``. ! ? …`` (and closing quotes) before white space or
    the end; a full stop does not end it before a lower-case letter or after "Mr", "e.g." and the
    like. It has at least one letter, so "1." or "?!" alone is none.
    """
    start = next((i for i, c in enumerate(text) if c.isalpha()), len(text))
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    for stop in _STOP.finditer(text, start, end):
        after = text[stop.end() :]
        wide = stop.group()[0] in "。！？"
        if after and not after[0].isspace() and not wide:
            continue
        if stop.group()[0] in ".…" and _goes_on(text[start : stop.start()], after):
            continue
        return stop.end()
    return end


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space around them; see `first_sentence_end`."""
    found: list[str] = []
    while text := text.strip():
        end = first_sentence_end(text)
        found.append(text[:end].strip())
        text = text[end:]
    return found


def _goes_on(before: str, after: str) -> bool:
    """Whether a full stop stands inside a sentence."""
    last = _LAST_WORD.search(before)
    short = last is not None and last.group().lower() in _SHORT
    return after.lstrip()[:1].islower() or (short and bool(after.strip()))
