"""No template loses a word: contents as parts, thoughts left out, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from affectlens.core import DataError, ModelError
from affectlens.models.chat.chats import encode, render
from affectlens.models.chat.special_tokens import end_of_turn
from tests.models.test_chat import CHATML, DROPS_SYSTEM, byte_tokenizer, decoded

SYSTEM = {"role": "system", "content": "Be brief."}
FIRST = {"role": "user", "content": "Hello, you."}
ANSWER = {"role": "assistant", "content": "Hello, what happened?"}
SECOND = {"role": "user", "content": "My train was cancelled."}
REPLY = {"role": "assistant", "content": "That is a long wait."}
CHATS = {
    "prompt": (SECOND,),
    "reply": (SECOND, REPLY),
    "system": (SYSTEM, SECOND),
    "turns": (SYSTEM, FIRST, ANSWER, SECOND, REPLY),
}

TEXTS = (
    "{% for p in m['content'] | selectattr('type', 'equalto', 'text') %}{{ p['text'] }}{% endfor %}"
)
LLAVA = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' + m['content'][0]['text'] + '<|eot|>' }}{% else %}"
    "{{ m['role'] | upper + ': ' }}" + TEXTS + "{{ ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# As a user's parts are wanted, but a reply's string: what neither form alone gives.
MIXED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' }}" + TEXTS + "{% else %}"
    "{{ m['role'] | upper + ': ' + m['content'] + '<|eot|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
NO_SYSTEM = LLAVA.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}"
)
EITHER = CHATML.replace(
    "+ m['content'] +", "+ (m['content'] if m['content'] is string else 'PARTS') +"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}"
    "{{ m['content'].split('</think>')[-1].lstrip('\n') }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)


@pytest.mark.parametrize("chat", CHATS.values(), ids=list(CHATS))
@pytest.mark.parametrize("template", [LLAVA, MIXED, NO_SYSTEM], ids=["llava", "mixed", "merged"])
def test_every_message_is_in_the_text(template: str, chat: tuple[dict[str, str], ...]) -> None:
    tokenizer = byte_tokenizer(template)
    asks = chat[-1]["role"] == "user"
    row = encode(tokenizer, chat, add_generation_prompt=asks)
    text = tokenizer.decode(row.ids)
    assert all(turn["content"] in text for turn in chat) and "type" not in text
    assert text.endswith("ASSISTANT:") == asks
    seen = {"user": 0, "assistant": 0}
    for turn in chat:
        if turn["role"] in seen:
            part = f"{turn['role']}:{seen[turn['role']]}"
            assert decoded(tokenizer, row, part) == turn["content"]
            seen[turn["role"]] += 1


def test_parts_are_what_the_template_itself_makes_of_them() -> None:
    tokenizer = byte_tokenizer(LLAVA)
    parts = [{"role": t["role"], "content": [{"type": "text", "text": t["content"]}]} for t in
             CHATS["turns"]]  # fmt: skip
    expected = tokenizer.apply_chat_template(parts, tokenize=False)
    assert render(tokenizer, CHATS["turns"], add_generation_prompt=False).text == expected


def test_strings_are_preferred_and_lists_are_never_printed_as_such() -> None:
    assert (
        "PARTS"
        not in render(byte_tokenizer(EITHER), CHATS["turns"], add_generation_prompt=False).text
    )
    dropped = render(byte_tokenizer(DROPS_SYSTEM), CHATS["system"], add_generation_prompt=True).text
    assert "type" not in dropped and "Be brief.\n\nMy train" in dropped


LAST_USER = CHATML.replace("for m in messages", "for m in messages[-2:]")
LOSING = {
    "prints no user": (CHATML.replace("in messages", "in messages if m['role'] != 'user'"), "user"),
    "last turns only": (LAST_USER, "user message"),
    "cuts": (CHATML.replace("m['content']", "m['content'][:9]"), "does not print the"),
    "parts, cut": (TEXTS.replace("p['text']", "p['text'][:5]").join(
        ("{% for m in messages %}", "{% endfor %}")), "user message"),
    "no earlier replies": (
        "{% for m in messages %}{% if m['role'] != 'assistant' or loop.last %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}", "assistant message"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSING)
def test_words_that_would_be_lost_are_refused(name: str) -> None:
    template, words = LOSING[name]
    chat = (FIRST, ANSWER, SECOND, REPLY)
    with pytest.raises(ModelError, match=words) as raised:
        render(byte_tokenizer(template), chat, add_generation_prompt=False)
    assert "lost or changed" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("end", ["</think>", "\n</think>\n\n"])
def test_thoughts_of_earlier_replies_may_be_dropped(end: str) -> None:
    tokenizer = byte_tokenizer(THINKING)
    thought = {"role": "assistant", "content": f"<think>Hm, who is this?{end}Hello, what happened?"}
    row = encode(tokenizer, (FIRST, thought, SECOND, REPLY), add_generation_prompt=False)
    assert "Hm" not in tokenizer.decode(row.ids)
    assert decoded(tokenizer, row, "assistant:0") == ANSWER["content"]
    assert decoded(tokenizer, row, "user:1") == SECOND["content"]
    assert decoded(tokenizer, row, "reply") == REPLY["content"]


def test_switches_for_thinking_may_be_dropped() -> None:
    template = CHATML.replace("m['content']", "m['content'].replace('/no_think', '') | trim")
    system = {"role": "system", "content": "Be brief. /no_think"}
    text = render(byte_tokenizer(template), (system, SECOND), add_generation_prompt=True).text
    assert "Be brief.<|im_end|>" in text


def test_end_of_turn_of_a_template_that_wants_parts() -> None:
    tokenizer: Any = byte_tokenizer(LLAVA)
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|eot|>")


def test_content_must_be_a_text() -> None:
    parts: Any = {"role": "user", "content": [{"type": "text", "text": "a"}]}
    with pytest.raises(DataError, match="must be a text"):
        render(byte_tokenizer(CHATML), [parts], add_generation_prompt=True)
