"""Chat templates as they are met: what they print of each message, and where.

A template is somebody's program, and many print less than they are given: some have no system role,
some want a message's content as a list of parts and print nothing of a string, some drop what an
earlier reply thought. So a chat is written in the first form of which every message is found in the
text; where there is none, a sentence says whose words would be lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

from affectlens.core import ModelError

logger = logging.getLogger(__name__)

Span = tuple[int, int]
Turn = dict[str, str]
Apply = Callable[[Sequence[Mapping[str, Any]]], str]

SEPARATOR = "\n\n"
# Stands for a message's content while we look where a template puts it. Letters only: templates
# split contents at tags, and strip white space.
_SENTINEL = "QXZWCONTENTWZXQ"
# A template made for strings prints a list of parts the way Python or JSON writes it.
_LITERAL = re.compile(rf"""['"]text['"]: ['"]{_SENTINEL}""")
# What templates leave out by design: what an earlier reply thought, and switches for thinking.
_THOUGHT = re.compile(r"^.*(?:</(?:\w+:)?think(?:ing)?>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
_SWITCH = re.compile(r"/(?:no_)?think\b")


@dataclass(frozen=True)
class Written:
    """A chat as its template writes it.

    Attributes:
        text: All of it.
        spans: Characters ``[start, end)`` of each message's content; None where it is printed, but
            not at one place of its own.
        verbatim: Whether each message is printed as it is, but for white space at its ends.
    """

    text: str
    spans: tuple[Span | None, ...]
    verbatim: tuple[bool, ...]


@dataclass(frozen=True)
class _Form:
    """A way to hand a chat to a template.

    Attributes:
        merged: Whether the system text goes before the first user message.
        parts: The roles whose content is given as a list of parts.
    """

    merged: bool
    parts: frozenset[str]

    def of(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        turns = _without_system(turns) if self.merged else turns
        return [
            {
                "role": turn["role"],
                "content": [{"type": "text", "text": turn["content"]}]
                if turn["role"] in self.parts
                else turn["content"],
            }
            for turn in turns
        ]


def write_chat(apply: Apply, turns: Sequence[Turn], name: str) -> Written:
    """Write a chat in the first form of which its template prints every message.

    Args:
        apply: The template: from messages to text.
        turns: ``{"role", "content"}`` in order; a system message comes first.
        name: Of the tokenizer, for messages.

    Raises:
        ModelError: If the template refuses the chat, or loses or changes what a message says.
    """
    refused: Exception | None = None
    lost: int | None = None
    for form in _forms(turns):
        try:
            found = _written(apply, form, turns)
        except _errors() as error:
            # What a template says of a form that it was not made for helps nobody.
            refused = error if refused is None or not form.parts else refused
            continue
        if isinstance(found, Written):
            if form.merged:
                _warn_no_system_role(name)
            return found
        lost = found if lost is None else lost
    if lost is not None:
        role = turns[lost]["role"]
        what = "reply" if role == "assistant" and lost == len(turns) - 1 else f"{role} message"
        raise ModelError(
            f"The chat template of {name} does not print the {what} as it is, so words would be "
            "lost or changed; set tokenizer.chat_template to one that prints every message."
        )
    roles = " then ".join(turn["role"] for turn in turns)
    raise ModelError(
        f"The chat template of {name} refuses this chat ({roles}): {refused}."
    ) from refused


def _forms(turns: Sequence[Turn]) -> Iterator[_Form]:
    """Strings before parts, and the system text in its own role before merging it."""
    roles = tuple(dict.fromkeys(turn["role"] for turn in turns))
    merging = (False, True) if roles[0] == "system" else (False,)
    sizes = [0, len(roles), *range(1, len(roles))]
    for size in sizes:
        for merged in merging:
            for parts in combinations(roles, size):
                yield _Form(merged, frozenset(parts))


def _errors() -> tuple[type[Exception], ...]:
    """What a template raises, by itself or because it meets something it was not made for."""
    from jinja2.exceptions import TemplateError

    return (TemplateError, TypeError, AttributeError, LookupError, ValueError)


def _written(apply: Apply, form: _Form, turns: Sequence[Turn]) -> Written | int:
    """The chat in a form, or the number of a message that it does not print."""
    text = apply(form.of(turns))
    spans, verbatim = list[Span | None](), list[bool]()
    for index, turn in enumerate(turns):
        frame = apply(form.of(_with_content(turns, index, _SENTINEL)))
        if _LITERAL.search(frame):
            return index
        span = _locate(frame, text)
        printed = "" if span is None else text[slice(*span)]
        content = turn["content"]
        if span is not None and printed.strip() == content.strip():
            verbatim.append(True)
        elif span is not None and any(_alike(printed, said) for said in _said(turn)):
            verbatim.append(False)
        elif _SENTINEL in frame and _squeezed(content) in _squeezed(text):
            # The frame itself depends on the content, or the template prints it twice.
            span = None
            verbatim.append(True)
        else:
            return index
        spans.append(span)
    return Written(text, tuple(spans), tuple(verbatim))


def _locate(frame: str, text: str) -> Span | None:
    """Where the text has what the frame has a sentinel for, if all around it is the same."""
    before, found, after = frame.partition(_SENTINEL)
    if not found or _SENTINEL in after:
        return None
    start, end = len(before), len(text) - len(after)
    same = text.startswith(before) and text.endswith(after) and start <= end
    return (start, end) if same else None


def _said(turn: Turn) -> Iterator[str]:
    """What a template may print of a message: all of it, or all but thoughts and switches."""
    content = turn["content"]
    yield content
    yield _SWITCH.sub("", content)
    if turn["role"] == "assistant":
        yield _THOUGHT.sub("", content)


def _alike(one: str, other: str) -> bool:
    return _squeezed(one) == _squeezed(other)


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The same chat with the system text at the head of the first user message."""
    system, *rest = turns
    for index, turn in enumerate(rest):
        if turn["role"] == "user":
            merged = f"{system['content']}{SEPARATOR}{turn['content']}"
            return _with_content(rest, index, merged)
    return [{"role": "user", "content": system["content"]}, *rest]


def _with_content(turns: Sequence[Turn], index: int, content: str) -> list[Turn]:
    changed = [dict(turn) for turn in turns]
    changed[index]["content"] = content
    return changed


@lru_cache(maxsize=64)
def _warn_no_system_role(name: str) -> None:
    logger.warning(
        "The chat template of %s has no system role; the system text goes before the first user "
        "message.",
        name,
    )
