"""Replies that hold what a model thought: where they start, and what their template would lose.

Reasoning models write their thoughts into the reply, between tags; some templates open the tag
themselves, at the end of the prompt. When such a chat is written again, most templates drop the
thoughts or move them, so the text is not what the model read. A last reply with thoughts is
therefore put as it is behind what opens a reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from affectlens.core import ModelError
from affectlens.models.chat.templates import Apply, Turn, Written, write_chat

_TAG = r"(?:<(?:\w+:)?think(?:ing)?>|\[THINK\])"
_CLOSED = re.compile(r"</(?:\w+:)?think(?:ing)?>|\[/THINK\]", re.IGNORECASE)
_OPENED = re.compile(rf"{_TAG}\s*$", re.IGNORECASE)
_OPENING = re.compile(rf"^\s*{_TAG}\n?", re.IGNORECASE)
_PLAIN = "affectlens"


def has_thoughts(reply: str) -> bool:
    """Whether a reply closes a thought."""
    return _CLOSED.search(reply) is not None


def write_thoughts(closed: Apply, opened: Apply, turns: Sequence[Turn], name: str) -> Written:
    """Write a chat whose last reply has thoughts.

    The template is taken at its word if it prints the reply as it is. Otherwise the text is the
    prompt as it is for generation, the reply, and what the template puts behind a reply. A tag that
    both the prompt and the reply open is opened once, by the prompt.

    Args:
        closed: The template without what opens a reply.
        opened: The same with it.
        turns: ``{"role", "content"}`` in order, the last one the assistant's.
        name: Of the tokenizer, for messages.

    Raises:
        ModelError: As `write_chat`, of the chat without the reply.
    """
    try:
        written = write_chat(closed, turns, name)
        if written.spans[-1] is not None and written.verbatim[-1]:
            return written
    except ModelError:
        pass
    prompt = write_chat(opened, turns[:-1], name)
    reply = turns[-1]["content"]
    if _OPENED.search(prompt.text):
        reply = _OPENING.sub("", reply)
    start, end = len(prompt.text), len(prompt.text) + len(reply)
    return Written(
        prompt.text + reply + _behind(closed, turns, name),
        (*prompt.spans, (start, end)),
        (*prompt.verbatim, True),
    )


def _behind(closed: Apply, turns: Sequence[Turn], name: str) -> str:
    """What the template writes after a reply."""
    plain = write_chat(closed, [*turns[:-1], {"role": "assistant", "content": _PLAIN}], name)
    span = plain.spans[-1]
    return "" if span is None else plain.text[span[1] :]
