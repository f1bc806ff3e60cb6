"""What a cell holds: nothing, one label, or several."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan
from typing import Any, cast

from affectlens.core import DataError

# What programs write where there is no value, whatever the case.
_MISSING = frozenset(
    ("", "nan", "-nan", "na", "n/a", "none", "null", "nil", "nat", "<na>", "#n/a", "#na")
)
# Of these, what is hardly ever somebody's words.
_NO_WORDS = frozenset(("nan", "NaN", "NAN", "-nan", "<NA>", "#N/A", "N/A", "None", "NULL", "null"))
_ALWAYS = re.compile(r"\s*[,;|]\s*")
_PERHAPS = re.compile(r"\s*[,;|/+&]\s*|\s+and\s+")
_LIST = re.compile(r"[\[({](.*)[\])}]", re.DOTALL)


def missing(value: Any, *, words: bool = False) -> bool:
    """Whether a cell stands for no value: null, NaN, white space, or a name for them.

    Args:
        value: Of a cell.
        words: Whether it is a text, of which fewer names are believed: somebody may say "none".
    """
    if value is None or (isinstance(value, float) and isnan(value)):
        return True
    if not isinstance(value, str):
        return False
    text = value.strip()
    return not text or (text in _NO_WORDS if words else text.lower() in _MISSING)


def one_or_more(value: Any, *, sure: bool) -> list[str]:
    """The labels of a cell, which may be a list, written as one, or hold a separator.

    Args:
        value: A text, a number or a list of them.
        sure: Whether ``,``, ``;`` and ``|`` alone separate labels; else ``/``, ``+``, ``&`` and
            ``and`` do too.
    """
    if isinstance(value, (list, tuple)):
        found = [str(item) for item in cast("Sequence[Any]", value) if not missing(item)]
    else:
        text = str(value).strip()
        listed = _LIST.fullmatch(text)
        found = (_ALWAYS if sure else _PERHAPS).split(listed[1] if listed else text)
        if listed:
            found = [name.strip().strip("'\"") for name in found]
    return list(dict.fromkeys(name.strip() for name in found if not missing(name)))


def turns(where: str, value: Any) -> list[tuple[str, str]]:
    """Roles and contents of a chat: ``[{"role": …, "content": …}, …]``.

    Raises:
        DataError: If it is none, or holds something else than text.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: messages must be a list of {{'role': …, 'content': …}}.")
    found: list[tuple[str, str]] = []
    for n, turn in enumerate(cast("list[Any]", value), start=1):
        if not isinstance(turn, dict) or not {"role", "content"} <= set(cast("Any", turn)):
            raise DataError(f"{where}: message {n} is not {{'role': …, 'content': …}}.")
        fields = cast("dict[str, Any]", turn)
        role = fields["role"]
        if role not in ("system", "user", "assistant"):
            raise DataError(
                f"{where}: message {n} has the role {role!r}; use system, user or assistant."
            )
        if role == "system" and n > 1:
            raise DataError(f"{where}: message {n} is a system message; only the first may be one.")
        content = _content(f"{where}: message {n}", fields["content"])
        if missing(content, words=True):
            raise DataError(f"{where}: message {n} ({role}) is empty; leave it out.")
        found.append((role, content))
    return found


def _content(where: str, content: Any) -> str:
    """A text, or the text parts of a list, one below the other."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise DataError(f"{where} has a content that is neither a text nor a list of parts.")
    texts: list[str] = []
    for part in cast("list[Any]", content):
        kind = cast("dict[str, Any]", part).get("type") if isinstance(part, dict) else None
        text: Any = cast("dict[str, Any]", part).get("text") if kind == "text" else None
        if not isinstance(text, str):
            what = f"a part of type {kind!r}" if kind not in (None, "text") else "a damaged part"
            raise DataError(f"{where} holds {what}; only text can be read, leave the row out.")
        texts.append(text)
    return "\n".join(texts)
