"""Chats as the model sees them: the model's own template, and where each part lies in it.

Everything goes through `render` and `tokenize`, capture and generation alike, so that prompts are
byte-identical wherever they are used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from affectlens.core import DataError, ModelError
from affectlens.core.errors import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Span = tuple[int, int]
Turn = dict[str, str]

_ROLES = ("system", "user", "assistant", "text")
_SEPARATOR = "\n\n"
# Stands for a message's content while we look where a template puts it. Letters only: templates
# split contents at tags, and strip white space.
_SENTINEL = "QXZWCONTENTWZXQ"
TODAY = datetime(2024, 7, 26)
"""The date that templates print; a fixed one keeps prompts the same tomorrow."""

TEMPLATE_FACTS: Mapping[str, Any] = {
    "date_string": TODAY.strftime("%d %b %Y"),
    "strftime_now": TODAY.strftime,
    "enable_thinking": False,
}
"""What templates ask for; those that do not ignore it. Llama 3 prints ``date_string``, SmolLM3 and
gpt-oss call ``strftime_now``; Qwen 3 answers without a chain of thought."""


@dataclass(frozen=True)
class Rendered:
    """A chat as one string.

    Attributes:
        text: What is tokenized.
        spans: Character offsets ``[start, end)`` of ``"reply"`` (content of a last assistant
            message), ``"user"`` (content of the last user message), ``"system"``, ``"prompt"``
            (everything before the reply, or all of it if there is none), or, for a plain text,
            ``"text"`` alone. A part that the template does not print verbatim has no span.
        templated: Whether a chat template wrote it; it then holds its special tokens already.
    """

    text: str
    spans: Mapping[str, Span]
    templated: bool = False


@dataclass(frozen=True)
class TokenizedRow:
    """Token ids of one chat, and the same spans in tokens ``[start, end)``."""

    ids: tuple[int, ...]
    spans: Mapping[str, Span]

    def __len__(self) -> int:
        return len(self.ids)


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
) -> Rendered:
    """Write a chat the way its model was trained to read it.

    - With a chat template: the template decides. Where it adds a default system message when none
      is given (SmolLM2, Qwen 2.5), that is kept: it is what users of the model get.
    - A template without a system role: the system text is put before the first user message, two
      line breaks between them, and a warning is logged once.
    - No template (base models): system, user and reply texts with two line breaks between them.
    - A single message with role ``"text"``: the text itself, for any model.

    Args:
        tokenizer: Of the model.
        messages: ``{"role", "content"}`` in order.
        add_generation_prompt: Whether to end with what opens the model's reply.

    Raises:
        DataError: If the messages are no chat (empty, unknown role, text and chat mixed).
        ModelError: If the template refuses them or does not print the reply.
    """
    turns = _checked(messages)
    if turns[0]["role"] == "text":
        text = turns[0]["content"]
        return Rendered(text, {"text": (0, len(text))})
    if not getattr(tokenizer, "chat_template", None):
        return _plain(turns, add_generation_prompt)
    write = _template_writer(tokenizer, turns, add_generation_prompt)
    text = write(turns)
    spans = {
        name: span
        for name, index in _parts(turns).items()
        if (span := _locate(write, turns, index, text)) is not None
    }
    if turns[-1]["role"] == "assistant" and "reply" not in spans:
        raise ModelError(
            f"The chat template of {_name(tokenizer)} does not print the reply as it is; "
            "set tokenizer.chat_template to one that does."
        )
    spans["prompt"] = (0, spans["reply"][0] if "reply" in spans else len(text))
    return Rendered(text, spans, templated=True)


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    rendered: Rendered,
    *,
    max_length: int | None = None,
) -> TokenizedRow:
    """Turn a rendered chat into token ids, and its spans into token spans.

    A token belongs to a part if it covers any of its characters; the prompt ends where the reply's
    first token starts. Special tokens are added only where no template wrote them, at the start
    only, and never twice.

    Args:
        tokenizer: A fast tokenizer (it must know character offsets).
        rendered: What `render` gave.
        max_length: Longest row in tokens. A longer text or reply is cut at its end.

    Raises:
        ModelError: If the tokenizer knows no offsets.
        DataError: If the prompt alone is longer than ``max_length``.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"The tokenizer of {_name(tokenizer)} gives no character offsets; "
            "load its fast version (tokenizer.json)."
        )
    bos = cast("str | None", getattr(tokenizer, "bos_token", None))
    has_bos = bool(bos) and rendered.text.startswith(bos or "")
    encoding = tokenizer(
        rendered.text,
        add_special_tokens=not rendered.templated and not has_bos,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        verbose=False,
    )
    ids = cast("list[int]", encoding["input_ids"])
    offsets = cast("list[Span]", encoding["offset_mapping"])
    added = cast("list[int]", encoding["special_tokens_mask"])
    while ids and added[-1] and offsets[-1][0] == offsets[-1][1]:  # an end token we did not write
        ids, offsets, added = ids[:-1], offsets[:-1], added[:-1]
    spans = {name: _token_span(offsets, span) for name, span in rendered.spans.items()}
    if "prompt" in spans:
        spans["prompt"] = (0, spans["reply"][0] if "reply" in spans else len(ids))
    if max_length is not None and len(ids) > max_length:
        ids, spans = _cut(ids, spans, max_length)
    return TokenizedRow(tuple(ids), spans)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    max_length: int | None = None,
) -> TokenizedRow:
    """`render`, then `tokenize`."""
    rendered = render(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    return tokenize(tokenizer, rendered, max_length=max_length)


def _checked(messages: Sequence[Mapping[str, str]]) -> list[Turn]:
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    if not turns:
        raise DataError("There is nothing to render: give at least one message.")
    for turn in turns:
        if turn["role"] not in _ROLES:
            raise unknown("message role", turn["role"], _ROLES)
    roles = [turn["role"] for turn in turns]
    if "text" in roles and len(roles) > 1:
        raise DataError("A plain text cannot be mixed with chat messages; use one or the other.")
    if "system" in roles[1:]:
        raise DataError("A system message must come first.")
    return turns


def _parts(turns: Sequence[Turn]) -> dict[str, int]:
    """Index of the message each named part comes from."""
    parts = {turn["role"]: i for i, turn in enumerate(turns) if turn["role"] in ("system", "user")}
    if turns[-1]["role"] == "assistant":
        parts["reply"] = len(turns) - 1
    return parts


def _plain(turns: Sequence[Turn], add_generation_prompt: bool) -> Rendered:
    """Texts with two line breaks between them."""
    text, starts = "", list[int]()
    for turn in turns:
        text += _SEPARATOR if text else ""
        starts.append(len(text))
        text += turn["content"]
    spans = {
        name: (starts[i], starts[i] + len(turns[i]["content"])) for name, i in _parts(turns).items()
    }
    if add_generation_prompt:
        text += _SEPARATOR
    spans["prompt"] = (0, spans["reply"][0] if "reply" in spans else len(text))
    return Rendered(text, spans)


def _template_writer(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], add_generation_prompt: bool
) -> Callable[[Sequence[Turn]], str]:
    """A function from turns to text that puts the system text where the template can print it."""
    from jinja2.exceptions import TemplateError

    def apply(chat: Sequence[Turn]) -> str:
        return cast(
            "str",
            tokenizer.apply_chat_template(
                [dict(turn) for turn in chat],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **TEMPLATE_FACTS,
            ),
        )

    def apply_merged(chat: Sequence[Turn]) -> str:
        return apply(_without_system(chat))

    write = apply
    if turns[0]["role"] == "system":
        try:
            supported = _SENTINEL in apply(_with_content(turns, 0, _SENTINEL))
        except TemplateError:
            supported = False
        if not supported:
            _warn_no_system_role(_name(tokenizer))
            write = apply_merged
    try:
        write(turns)
    except TemplateError as error:
        raise ModelError(
            f"The chat template of {_name(tokenizer)} refuses this chat "
            f"({' then '.join(turn['role'] for turn in turns)}): {error}."
        ) from error
    return write


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The same chat with the system text at the head of the first user message."""
    system, *rest = turns
    for index, turn in enumerate(rest):
        if turn["role"] == "user":
            merged = f"{system['content']}{_SEPARATOR}{turn['content']}"
            return _with_content(rest, index, merged)
    return [{"role": "user", "content": system["content"]}, *rest]


def _with_content(turns: Sequence[Turn], index: int, content: str) -> list[Turn]:
    changed = [dict(turn) for turn in turns]
    changed[index]["content"] = content
    return changed


def _locate(
    write: Callable[[Sequence[Turn]], str], turns: Sequence[Turn], index: int, text: str
) -> Span | None:
    """Where message ``index`` is printed.

    A sentinel is written in its place; what stands before and after it must also stand before and
    after the content, which may have lost white space at its ends.
    """
    before, found, after = write(_with_content(turns, index, _SENTINEL)).partition(_SENTINEL)
    if not found or _SENTINEL in after:
        return None
    start, end = len(before), len(text) - len(after)
    content = turns[index]["content"]
    if not (text.startswith(before) and text.endswith(after) and start <= end):
        return None
    return (start, end) if text[start:end].strip() == content.strip() else None


def _token_span(offsets: Sequence[Span], span: Span) -> Span:
    """First and one past the last token that cover characters of the span."""
    start, end = span
    inside = [i for i, (s, e) in enumerate(offsets) if s < end and e > start and e > s]
    if inside:
        return inside[0], inside[-1] + 1
    # An empty part: put it before the first token that starts at or after it.
    following = (i for i, (s, e) in enumerate(offsets) if e > s and s >= start)
    first = next(following, len(offsets))
    return first, first


def _cut(
    ids: list[int], spans: Mapping[str, Span], max_length: int
) -> tuple[list[int], dict[str, Span]]:
    """Keep the first tokens, if what is read (the text or the reply) keeps at least one."""
    needed = spans["text"] if "text" in spans else spans.get("reply")
    if needed is None or needed[0] >= max_length:
        raise DataError(
            f"The prompt alone has {len(ids) if needed is None else needed[0]} tokens, the limit "
            f"is {max_length}; shorten it or raise the limit."
        )
    cut = {name: (min(s, max_length), min(e, max_length)) for name, (s, e) in spans.items()}
    return ids[:max_length], cut


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


@lru_cache(maxsize=64)
def _warn_no_system_role(name: str) -> None:
    logger.warning(
        "The chat template of %s has no system role; the system text goes before the first user "
        "message.",
        name,
    )
