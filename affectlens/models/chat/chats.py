"""Chats as the model sees them: the model's own template, and where each part lies in it.

Everything goes through `render` and `tokenize`, capture and generation alike, so that prompts are
byte-identical wherever they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from affectlens.core import DataError, ModelError
from affectlens.core.errors import unknown
from affectlens.core.utf8 import require_utf8
from affectlens.models.chat.dates import TODAY, with_fixed_date
from affectlens.models.chat.templates import SEPARATOR, Apply, Span, Turn, write_chat
from affectlens.models.chat.thoughts import has_thoughts, write_thoughts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROLES = ("system", "user", "assistant", "text")
TEMPLATE_FACTS: Mapping[str, Any] = {
    "date_string": TODAY.strftime("%d %b %Y"),
    "enable_thinking": False,
}
"""What templates are told unless a user says otherwise; those that do not ask ignore it.

Llama 3 prints ``date_string``; Qwen 3 answers without a chain of thought. What calls
``strftime_now`` (SmolLM3, gpt-oss) is told the same day, see `dates`.
"""


@dataclass(frozen=True)
class Rendered:
    """A chat as one string.

    Attributes:
        text: What is tokenized.
        spans: Character offsets ``[start, end)`` of ``"reply"`` (content of a last assistant
            message), ``"user"`` (content of the last user message), ``"system"``, ``"prompt"``
            (everything before the reply, or all of it if there is none), of every turn by its
            number (``"user:0"``, ``"assistant:0"``, ``"user:1"``, …), or, for a plain text,
            ``"text"`` alone. Of an earlier reply whose reasoning the template drops, the span
            holds the rest; a part that has no place of its own has no span.
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
    variables: Mapping[str, Any] | None = None,
) -> Rendered:
    """Write a chat the way its model was trained to read it.

    - With a chat template: the template decides. Where it adds a default system message when none
      is given (SmolLM2, Qwen 2.5), that is kept: it is what users of the model get. Every message
      is then looked for in the text; a template that prints contents only as a list of parts
      (LLaVA) gets them so.
    - A template without a system role: the system text is put before the first user message, two
      line breaks between them, and a warning is logged once.
    - No template (base models): system, user and reply texts with two line breaks between them.
    - A single message with role ``"text"``: the text itself, for any model.
    - A ``<think>`` that the template opens (or opens and closes) is part of the prompt. A last
      reply with thoughts of its own, which most templates drop or move, is put as it is behind
      what opens a reply: so the model read it when it wrote it.

    Args:
        tokenizer: Of the model.
        messages: ``{"role", "content"}`` in order.
        add_generation_prompt: Whether to end with what opens the model's reply.
        variables: What the template is told besides, in place of :data:`TEMPLATE_FACTS`.

    Raises:
        DataError: If the messages are no chat (empty, unknown role, text and chat mixed).
        ModelError: If the template refuses them, or does not print one of them.
    """
    turns = _checked(messages)
    if turns[0]["role"] == "text":
        text = turns[0]["content"]
        return Rendered(text, {"text": (0, len(text))})
    if not getattr(tokenizer, "chat_template", None):
        return _plain(turns, add_generation_prompt)
    told = {**TEMPLATE_FACTS, **(variables or {})}
    name = _name(tokenizer)
    closed = _applied(tokenizer, add_generation_prompt, told)
    if len(turns) > 1 and turns[-1]["role"] == "assistant" and has_thoughts(turns[-1]["content"]):
        written = write_thoughts(closed, _applied(tokenizer, True, told), turns, name)
    else:
        written = write_chat(closed, turns, name)
    text = written.text
    spans = {
        name: span for name, i in _parts(turns).items() if (span := written.spans[i]) is not None
    }
    if turns[-1]["role"] == "assistant" and not ("reply" in spans and written.verbatim[-1]):
        raise ModelError(
            f"The chat template of {name} does not print the reply as it is; "
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
    tokens = {span: _token_span(offsets, span) for span in set(rendered.spans.values())}
    spans = {name: tokens[span] for name, span in rendered.spans.items()}
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
    variables: Mapping[str, Any] | None = None,
    max_length: int | None = None,
) -> TokenizedRow:
    """`render`, then `tokenize`."""
    rendered = render(
        tokenizer, messages, add_generation_prompt=add_generation_prompt, variables=variables
    )
    return tokenize(tokenizer, rendered, max_length=max_length)


def _checked(messages: Sequence[Mapping[str, str]]) -> list[Turn]:
    turns = [{"role": m["role"], "content": m["content"]} for m in messages]
    if not turns:
        raise DataError("There is nothing to render: give at least one message.")
    for turn in turns:
        if turn["role"] not in _ROLES:
            raise unknown("message role", turn["role"], _ROLES)
        if not isinstance(turn["content"], str):
            raise DataError(_not_a_text(turn["role"], turn["content"]))
        require_utf8(f"The {turn['role']} message", turn["content"])
    roles = [turn["role"] for turn in turns]
    if "text" in roles and len(roles) > 1:
        raise DataError("A plain text cannot be mixed with chat messages; use one or the other.")
    if "system" in roles[1:]:
        raise DataError("A system message must come first.")
    return turns


def _not_a_text(role: str, content: Any) -> str:
    parts = content if isinstance(content, Sequence) else [content]
    kinds = [str(part.get("type")) for part in parts if isinstance(part, Mapping)]
    for kind in ("image", "audio", "video"):
        if any(kind in each for each in kinds):
            what = {"image": "an image", "audio": "sound", "video": "a video"}[kind]
            return (
                f"A {role} message holds {what}; affectlens reads text only, whatever "
                "else the model can see or hear: give the message as a text."
            )
    return f"A {role} message must be a text, not {content!r}."


def _parts(turns: Sequence[Turn]) -> dict[str, int]:
    """Index of the message each named part comes from."""
    parts = {turn["role"]: i for i, turn in enumerate(turns) if turn["role"] in ("system", "user")}
    if turns[-1]["role"] == "assistant":
        parts["reply"] = len(turns) - 1
    for role in ("user", "assistant"):
        places = [i for i, turn in enumerate(turns) if turn["role"] == role]
        parts |= {f"{role}:{k}": i for k, i in enumerate(places)}
    return parts


def _plain(turns: Sequence[Turn], add_generation_prompt: bool) -> Rendered:
    """Texts with two line breaks between them."""
    text, starts = "", list[int]()
    for turn in turns:
        text += SEPARATOR if text else ""
        starts.append(len(text))
        text += turn["content"]
    spans = {
        name: (starts[i], starts[i] + len(turns[i]["content"])) for name, i in _parts(turns).items()
    }
    if add_generation_prompt:
        text += SEPARATOR
    spans["prompt"] = (0, spans["reply"][0] if "reply" in spans else len(text))
    return Rendered(text, spans)


def _applied(
    tokenizer: PreTrainedTokenizerBase, add_generation_prompt: bool, told: Mapping[str, Any]
) -> Apply:
    """The tokenizer's template as a function from messages to text."""
    template = with_fixed_date(tokenizer.get_chat_template())

    def apply(chat: Sequence[Mapping[str, Any]]) -> str:
        return cast(
            "str",
            tokenizer.apply_chat_template(
                [dict(turn) for turn in chat],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **told,
            ),
        )

    return apply


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
