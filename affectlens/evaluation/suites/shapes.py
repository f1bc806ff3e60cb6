"""Rules for the shape of a reply, by name: what an item of a data file may ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from affectlens.core.errors import unknown
from affectlens.core.sentences import sentences
from affectlens.evaluation.suites.base import Item
from affectlens.evaluation.text_metrics import words

Wanted = Mapping[str, Any]


def _lines(reply: str) -> list[str]:
    return [line.strip() for line in reply.split("\n") if line.strip()]


def _within(count: int, wanted: Wanted) -> bool:
    return wanted.get("least", 0) <= count <= wanted.get("most", count)


def _bullets(reply: str, wanted: Wanted) -> bool:
    return sum(bool(re.match(r"[-–*•]\s*\w", line)) for line in _lines(reply)) == wanted["n"]


def _numbered(reply: str, wanted: Wanted) -> bool:
    numbers = [m[1] for line in _lines(reply) if (m := re.match(r"(\d+)[.):]\s*\S", line))]
    return numbers == [str(n + 1) for n in range(wanted["n"])]


def _capitals(reply: str, _wanted: Wanted) -> bool:
    return reply.upper() == reply and any(c.isalpha() for c in reply)


def _one_of(reply: str, wanted: Wanted) -> bool:
    return reply.strip(" .!\"'\n").lower() in wanted["values"]


def _json(reply: str, wanted: Wanted) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", reply.strip(), re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else reply)
    except ValueError:
        return False
    return isinstance(found, dict) and set(found) == set(wanted["values"])


def _commas(reply: str, wanted: Wanted) -> bool:
    parts = [part.strip() for part in reply.strip().rstrip(".").split(",")]
    return len(_lines(reply)) == 1 and len(parts) == wanted["n"] and all(parts)


def _begins(reply: str, wanted: Wanted) -> bool:
    return any(reply.strip().lower().startswith(start) for start in wanted["values"])


def _word_count(reply: str, wanted: Wanted) -> bool:
    return _within(len(words(reply)), wanted)


def _sentence_count(reply: str, wanted: Wanted) -> bool:
    return _within(len(sentences(reply)), wanted)


SHAPES: Mapping[str, Callable[[str, Wanted], bool]] = {
    "bullets": _bullets,
    "numbered": _numbered,
    "capitals": _capitals,
    "one_of": _one_of,
    "json": _json,
    "commas": _commas,
    "begins": _begins,
    "words": _word_count,
    "sentences": _sentence_count,
}
"""Name → rule of a reply and of what the item says: ``n``, ``values``, ``least``, ``most``."""


def fits(item: Item, reply: str) -> bool:
    """Whether a reply has the shape that an item asks for.

    Raises:
        UnknownNameError: If the item asks for a shape that there is not.
    """
    name = str(item.wanted.get("check"))
    if name not in SHAPES:
        raise unknown("shape of a reply", name, SHAPES)
    return SHAPES[name](reply, item.wanted)
