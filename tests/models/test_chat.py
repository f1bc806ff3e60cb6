"""Rendering and spans, against templates written by hand in the manner of known families."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affectlens.core import DataError, ModelError, UnknownNameError
from affectlens.models.chat.chats import encode, render, tokenize
from affectlens.models.chat.dates import TODAY
from tests.conftest import tiny_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
LLAMA3 = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = 'MOVING' %}{% endif %}"
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' }}"
    "{% if m['role'] == 'system' %}{{ 'Today: ' + date_string + '\n\n' }}{% endif %}"
    "{{ m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n'"
    " + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
DROPS_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
    "{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{{ '<think>\n\n</think>\n\n' +"
    " m['content'].split('</think>')[-1].lstrip('\n') }}{% else %}{{ m['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "default_system": DEFAULT_SYSTEM,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "drops_system": DROPS_SYSTEM,
    "thinking": THINKING,
    "none": None,
}
NO_SYSTEM_ROLE = ("gemma", "drops_system")

SYSTEM = {"role": "system", "content": "Always reply in anger. Reply in at most two sentences."}
USER = {"role": "user", "content": "I waited an hour. The train was cancelled."}
REPLY = {"role": "assistant", "content": "That is a disgrace! Écrivez-leur 🙂, today."}
CHAT = (SYSTEM, USER, REPLY)


def byte_tokenizer(
    template: str | None = None, *, adds_bos: bool = False, adds_eos: bool = False
) -> Any:
    """One token per byte, so that every boundary shows; special tokens are single tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<|eot|>", "<end_of_turn>"],
    )
    if adds_bos or adds_eos:
        single = f"{'<s> ' * adds_bos}$A{' </s>' * adds_eos}"
        ids = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<s>", "</s>")]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} $B", special_tokens=ids
        )
    tokenizer.chat_template = template
    return tokenizer


def decoded(tokenizer: Any, row: Any, part: str) -> str:
    start, end = row.spans[part]
    return tokenizer.decode(row.ids[start:end], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("with_system", [True, False])
def test_reply_span_decodes_to_exactly_the_reply(name: str, with_system: bool) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name], adds_bos=True)
    chat = CHAT if with_system else CHAT[1:]
    rendered = render(tokenizer, chat, add_generation_prompt=False)
    row = tokenize(tokenizer, rendered)
    assert decoded(tokenizer, row, "reply") == REPLY["content"]
    assert decoded(tokenizer, row, "user") == USER["content"]
    assert row.spans["prompt"] == (0, row.spans["reply"][0])
    assert rendered.text[slice(*rendered.spans["reply"])] == REPLY["content"]
    assert ("system" in row.spans) == with_system
    if with_system:
        assert decoded(tokenizer, row, "system") == SYSTEM["content"]


@pytest.mark.parametrize("name", [n for n in TEMPLATES if TEMPLATES[n]])
def test_template_output_is_left_as_the_template_wrote_it(name: str) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name], adds_bos=True)
    merged = [{"role": "user", "content": f"{SYSTEM['content']}\n\n{USER['content']}"}, REPLY]
    chat = merged if name in NO_SYSTEM_ROLE else list(CHAT)
    facts = {"date_string": "26 Jul 2024", "enable_thinking": False}
    expected = tokenizer.apply_chat_template(chat, tokenize=False, **facts)
    assert render(tokenizer, CHAT, add_generation_prompt=False).text == expected
    ids = tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert list(encode(tokenizer, CHAT, add_generation_prompt=False).ids) == ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_with_a_reply_is_the_generation_prompt(name: str) -> None:
    """What is read at a reply's start is what the model sees when it generates one."""
    tokenizer = byte_tokenizer(TEMPLATES[name])
    prompt = render(tokenizer, CHAT[:2], add_generation_prompt=True)
    assert prompt.spans["prompt"] == (0, len(prompt.text))
    with_reply = render(tokenizer, CHAT, add_generation_prompt=False)
    before = with_reply.text[slice(*with_reply.spans["prompt"])]
    assert before == prompt.text + (" " if name == "drops_system" else "")


@pytest.mark.parametrize("name", TEMPLATES)
def test_white_space_at_the_ends_of_a_reply(name: str) -> None:
    """Templates that trim give the trimmed reply, the others the reply as it is."""
    tokenizer = byte_tokenizer(TEMPLATES[name])
    reply = "  \n Oh no.  \n"
    row = encode(
        tokenizer, [USER, {"role": "assistant", "content": reply}], add_generation_prompt=False
    )
    expected = reply.strip() if name in ("llama3", "gemma") else reply
    assert decoded(tokenizer, row, "reply") == expected


@pytest.mark.parametrize("name", TEMPLATES)
def test_reply_that_repeats_the_prompt_is_found_at_its_own_place(name: str) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name])
    echo = {"role": "assistant", "content": USER["content"]}
    rendered = render(tokenizer, [SYSTEM, USER, echo], add_generation_prompt=False)
    assert rendered.spans["user"][1] < rendered.spans["reply"][0]
    assert rendered.text[slice(*rendered.spans["reply"])] == USER["content"]


def test_last_reply_of_a_longer_chat() -> None:
    tokenizer = byte_tokenizer(CHATML)
    first = [USER, {"role": "assistant", "content": "I see."}]
    chat = [*first, {"role": "user", "content": "And now?"}, REPLY]
    row = encode(tokenizer, chat, add_generation_prompt=False)
    assert decoded(tokenizer, row, "reply") == REPLY["content"]
    assert decoded(tokenizer, row, "user") == "And now?"
    for k, message in enumerate(chat):
        assert decoded(tokenizer, row, f"{message['role']}:{k // 2}") == message["content"]


@pytest.mark.parametrize("name", NO_SYSTEM_ROLE)
def test_system_text_goes_before_the_user_where_the_template_has_no_such_role(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name])
    tokenizer.name_or_path = f"model-{name}"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            text = render(tokenizer, CHAT, add_generation_prompt=False).text
    assert f"{SYSTEM['content']}\n\n{USER['content']}" in text
    warnings = [r for r in caplog.records if f"model-{name}" in r.getMessage()]
    assert len(warnings) == 1


def test_system_text_that_the_template_prints_by_chance_is_still_kept() -> None:
    """A template that drops the system message but prints its words elsewhere."""
    tokenizer = byte_tokenizer(DROPS_SYSTEM)
    system = {"role": "system", "content": "INST"}
    text = render(tokenizer, [system, USER], add_generation_prompt=True).text
    assert f"INST\n\n{USER['content']}" in text


def test_default_system_message_of_a_template_is_kept() -> None:
    tokenizer = byte_tokenizer(DEFAULT_SYSTEM)
    assert "Be kind." in render(tokenizer, [USER], add_generation_prompt=True).text
    assert "Be kind." not in render(tokenizer, CHAT, add_generation_prompt=True).text


def test_prompts_do_not_change_with_the_date() -> None:
    text = render(byte_tokenizer(LLAMA3), CHAT, add_generation_prompt=False).text
    assert "MOVING" not in text and "Today: 26 Jul 2024" in text


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_no_double_bos(name: str) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name], adds_bos=True, adds_eos=True)
    row = encode(tokenizer, CHAT, add_generation_prompt=False)
    assert row.ids.count(tokenizer.bos_token_id) == 1 and row.ids[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in row.ids


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("adds_eos", [True, False])
def test_plain_text_gets_a_bos_if_the_tokenizer_adds_one_and_never_an_eos(
    adds_bos: bool, adds_eos: bool
) -> None:
    tokenizer = byte_tokenizer(CHATML, adds_bos=adds_bos, adds_eos=adds_eos)
    message = {"role": "text", "content": "Grief came late."}
    row = encode(tokenizer, [message], add_generation_prompt=False)
    assert decoded(tokenizer, row, "text") == "Grief came late."
    bos = (tokenizer.bos_token_id,) if adds_bos else ()
    assert row.ids == bos + tuple(row.ids[len(bos) :])
    assert len(row) == len("Grief came late.") + len(bos)
    assert set(row.spans) == {"text"}


def test_plain_text_that_starts_with_the_bos_gets_no_second_one() -> None:
    tokenizer = byte_tokenizer(adds_bos=True)
    row = encode(tokenizer, [{"role": "text", "content": "<s>Oh."}], add_generation_prompt=False)
    assert row.ids.count(tokenizer.bos_token_id) == 1


def test_base_model_gets_plain_paragraphs() -> None:
    rendered = render(byte_tokenizer(None), CHAT, add_generation_prompt=False)
    assert rendered.text == "\n\n".join(m["content"] for m in CHAT)
    prompt = render(byte_tokenizer(None), CHAT[:2], add_generation_prompt=True)
    assert prompt.text == f"{SYSTEM['content']}\n\n{USER['content']}\n\n"


def test_merged_tokens_at_a_boundary_belong_to_the_reply_not_the_prompt() -> None:
    """A token that covers the last of the prompt and the first of the reply."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate("ab\nxy")} | {"\nx": 5}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[("\n", "x")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    chat = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "xy"}]
    row = encode(tokenizer, chat, add_generation_prompt=False)
    assert row.ids == (0, 1, 2, 5, 4)
    assert row.spans["reply"] == (3, 5) and row.spans["prompt"] == (0, 3)


def test_cutting_keeps_the_prompt_and_the_start_of_the_reply() -> None:
    tokenizer = byte_tokenizer(CHATML)
    full = encode(tokenizer, CHAT, add_generation_prompt=False)
    start = full.spans["reply"][0]
    cut = encode(tokenizer, CHAT, add_generation_prompt=False, max_length=start + 4)
    assert cut.ids == full.ids[: start + 4] and cut.spans["reply"] == (start, start + 4)
    assert decoded(tokenizer, cut, "reply") == REPLY["content"][:4]
    same = encode(tokenizer, CHAT, add_generation_prompt=False, max_length=len(full))
    assert same == full


@pytest.mark.parametrize("chat", [CHAT, CHAT[:2]])
def test_prompt_longer_than_the_limit_is_refused(chat: Any) -> None:
    tokenizer = byte_tokenizer(CHATML)
    with pytest.raises(DataError, match="limit is 10"):
        encode(tokenizer, chat, add_generation_prompt=chat is not CHAT, max_length=10)


@pytest.mark.parametrize(
    ("chat", "error"),
    [
        ([], DataError),
        ([{"role": "usr", "content": "x"}], UnknownNameError),
        ([{"role": "text", "content": "x"}, USER], DataError),
        ([USER, SYSTEM], DataError),
    ],
)
def test_what_is_no_chat_is_refused(chat: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        render(byte_tokenizer(CHATML), chat, add_generation_prompt=False)


def test_template_that_refuses_the_chat_is_named() -> None:
    with pytest.raises(ModelError, match="must alternate"):
        render(byte_tokenizer(GEMMA), [USER, USER, REPLY], add_generation_prompt=False)


def test_template_that_changes_the_reply_is_refused() -> None:
    upper = "(m['content'] | upper if m['role'] == 'assistant' else m['content'])"
    shouting = CHATML.replace("m['content']", upper)
    with pytest.raises(ModelError, match="does not print the reply"):
        render(byte_tokenizer(shouting), [USER, REPLY], add_generation_prompt=False)


def test_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast, name_or_path, chat_template = False, "slow", None

    with pytest.raises(ModelError, match="offsets"):
        encode(Slow(), [USER], add_generation_prompt=False)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TEMPLATES)),
    st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1).filter(str.strip),
    st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1).filter(str.strip),
)
def test_any_reply_survives_any_template(name: str, user: str, reply: str) -> None:
    tokenizer = byte_tokenizer(TEMPLATES[name])
    chat = [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    row = encode(tokenizer, chat, add_generation_prompt=False)
    found = decoded(tokenizer, row, "reply")
    assert found in (reply, reply.strip(), reply.lstrip("\n"))


def test_tiny_model_tokenizer(tiny_model: Any) -> None:
    tokenizer = tiny_model("llama").tokenizer
    reply = "I am so angry about it."
    chat = [
        {"role": "user", "content": "The train was late."},
        {"role": "assistant", "content": reply},
    ]
    row = encode(tokenizer, chat, add_generation_prompt=False)
    assert decoded(tokenizer, row, "reply") == reply


@pytest.mark.model
def test_every_shipped_record_on_the_real_tokenizer(real_model: Any) -> None:
    from affectlens.datasets import load

    tokenizer = real_model.tokenizer
    for name, part in (("replies", "reply"), ("tones", "text")):
        for record in load(name):
            row = encode(tokenizer, record.chat, add_generation_prompt=False)
            assert decoded(tokenizer, row, part) == record.text
    elicited = load("scenarios").filter(split="tune")
    for record in elicited:
        row = encode(tokenizer, record.chat, add_generation_prompt=True)
        expected = tokenizer.apply_chat_template(
            list(record.chat), add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        assert list(row.ids) == expected
        assert row.spans["prompt"] == (0, len(row))


def test_a_template_that_prints_the_date_is_the_same_tomorrow() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{{ strftime_now('%d %B %Y') }} {{ date_string }}\n" + tokenizer.chat_template
    )
    rendered = render(tokenizer, [{"role": "user", "content": "Hi."}], add_generation_prompt=True)
    assert rendered.text.startswith("26 July 2024 26 Jul 2024\n")


@pytest.mark.parametrize(
    "form",
    ["%Y-%m-%d", "%A %-d. %B", "%d/%m/%y %H:%M:%S", "100%% %j %%d", "%b %d, %I %p", "none"],
)
def test_dates_are_written_as_python_writes_them(form: str) -> None:
    """As gpt-oss does: inside a macro of the template's own, behind a first line break."""
    tokenizer = tiny_tokenizer()
    template = (
        "\n  {%- macro head() -%}on {{ strftime_now('" + form + "') }}|{%- endmacro %}{{ head() }}"
        "{#- and by name -#}{{ strftime_now(format='') }}"
    )
    tokenizer.chat_template = template + tokenizer.chat_template
    rendered = render(tokenizer, [{"role": "user", "content": "Hi."}], add_generation_prompt=True)
    assert rendered.text.startswith(f"on {TODAY.strftime(form)}|")
    tokenizer.chat_template = "\n\n" + tokenizer.chat_template
    bare = tokenizer.chat_template.replace(f"{{{{ strftime_now('{form}') }}}}", "X")
    kept = render(tokenizer, [{"role": "user", "content": "Hi."}], add_generation_prompt=True)
    tokenizer.chat_template = bare
    plain = render(tokenizer, [{"role": "user", "content": "Hi."}], add_generation_prompt=True)
    assert kept.text == plain.text.replace("on X|", f"on {TODAY.strftime(form)}|")
