"""What a template is told besides its messages, and replies that hold thoughts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectlens.activations import ActivationStore, capture
from affectlens.core.errors import DataError, MismatchError, UnknownNameError
from affectlens.datasets.schema import Corpus, Message, Record
from affectlens.models.chat.chats import encode, render
from affectlens.models.chat.special_tokens import end_of_turn
from affectlens.models.chat.variables import check_variables, parse_variables, used_by
from affectlens.models.loading import LanguageModel, load_model
from affectlens.steering.building import pack_provenance
from tests.conftest import tiny_hf, tiny_tokenizer

_TURNS = (
    "{% for m in messages %}{% if m.role != 'assistant' %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
)
# As Qwen 3 does it: thinking can be turned off, which closes a thought before it begins; of a
# reply that thinks, the thoughts are printed anew.
QWEN = (
    _TURNS + "{% else %}{% set thought = '' %}{% set said = m.content %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1]"
    ".strip('\n') %}{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n<think>\n' + thought + '\n</think>\n\n' + said + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# As DeepSeek R1 does it: the prompt opens a thought, earlier thoughts are dropped.
R1 = (
    _TURNS + "{% else %}{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1].lstrip('\n')"
    " + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# As gpt-oss does it: an effort in the system message, with a default of its own.
EFFORT = (
    "{% generation %}{% endgeneration %}"
    "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}"
    "{{ '<|im_start|>system\nReasoning: ' + reasoning_effort + '\n' + date_string }}"
    "{{ '<|im_end|>\n' }}"
    + _TURNS
    + "{% else %}{{ '<|im_start|>assistant\n' + m.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ASKED = [{"role": "user", "content": "Why?"}]


def told(template: str | None) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def model_with(template: str, **variables: Any) -> LanguageModel:
    return load_model(
        tiny_hf("llama"), tokenizer=told(template), template_variables=variables or None
    )


def corpus() -> Corpus:
    return Corpus(
        name="two",
        design="replies",
        records=tuple(
            Record(
                id=emotion, messages=(Message("user", "Why?"), Message("assistant", text)),
                emotion=emotion, valence=None, group="g", theme="t", split="fit",
            )
            for emotion, text in (("anger", "I am furious."), ("happiness", "I am so glad."))
        ),
    )  # fmt: skip


def prompt_of(template: str, **variables: Any) -> str:
    return render(
        told(template), ASKED, add_generation_prompt=True, variables=variables or None
    ).text


def test_variables_change_the_prompt_as_the_template_says() -> None:
    assert prompt_of(QWEN).endswith("assistant\n<think>\n\n</think>\n\n")
    assert prompt_of(QWEN, enable_thinking=True).endswith("<|im_start|>assistant\n")
    assert "Reasoning: medium\n26 Jul 2024" in prompt_of(EFFORT)
    assert "Reasoning: high\n" in prompt_of(EFFORT, reasoning_effort="high")
    assert "medium\n1 May 1999" in prompt_of(EFFORT, date_string="1 May 1999")
    for template, variables in ((QWEN, {"enable_thinking": True}), (EFFORT, {"date_string": "x"})):
        wanted = told(template).apply_chat_template(
            ASKED, tokenize=False, add_generation_prompt=True, **variables
        )
        assert prompt_of(template, **variables) == wanted


def test_what_a_template_uses_is_known() -> None:
    assert used_by(QWEN) == {"enable_thinking"}
    assert used_by(EFFORT) == {"reasoning_effort", "date_string"}
    assert used_by("{% if %}") == frozenset()
    assert used_by("{% set x = x if x is defined else 1 %}{{ bos_token + x }}") == {"x"}
    with pytest.raises(DataError, match=r"does not use 'enable_thought'; .*: enable_thinking\.$"):
        model_with(QWEN, enable_thought=True)
    with pytest.raises(DataError, match=r"does not use 'messages'; variables that it uses: enab"):
        model_with(QWEN, messages=[])
    with pytest.raises(DataError, match=r"does not use 'x'; variables that it uses: none\.$"):
        model_with(R1, x=1)
    with pytest.raises(DataError, match=r"must be a text, a number, .* not a object"):
        model_with(QWEN, enable_thinking=object())
    with pytest.raises(DataError, match="llama has no chat template, so nothing uses x; leave"):
        check_variables(told(None), {"x": 1}, "llama")
    several = told({"default": QWEN, "tool_use": EFFORT})
    assert check_variables(several, {"reasoning_effort": "low"}, "m") == {"reasoning_effort": "low"}


def test_assignments_are_read_as_json_or_text() -> None:
    given = ["enable_thinking=True", "effort=high", "n=3", "text=a=b", "none=null", 'q="true"']
    assert parse_variables(given) == {
        "enable_thinking": True, "effort": "high", "n": 3, "text": "a=b", "none": None, "q": "true",
    }  # fmt: skip
    for wrong in ("enable_thinking", "=true", "a b=1"):
        with pytest.raises(DataError, match=r"given as NAME=VALUE, .*, not '"):
            parse_variables([wrong])
    with pytest.raises(DataError, match="a is given twice"):
        parse_variables(["a=1", "a=2"])


def test_a_model_carries_them_to_every_prompt() -> None:
    plain, thinking = model_with(QWEN), model_with(QWEN, enable_thinking=True)
    wanted = encode(
        plain.tokenizer, ASKED, add_generation_prompt=True, variables={"enable_thinking": True}
    ).ids
    assert thinking.encode_chat(ASKED, add_generation_prompt=True).ids == wanted
    assert plain.encode_chat(ASKED, add_generation_prompt=True).ids != wanted
    replies = [
        thinking.generate("Why?", max_new_tokens=6),
        plain.generate("Why?", max_new_tokens=6, template_variables={"enable_thinking": True}),
    ]
    assert replies[0] == replies[1]
    assert plain.text_fingerprint != thinking.text_fingerprint
    assert plain.text_fingerprint == model_with(QWEN).text_fingerprint
    assert plain.fingerprint == thinking.fingerprint
    again = thinking.with_template_variables({"enable_thinking": False})
    assert dict(again.template_variables) == {"enable_thinking": False}
    with pytest.raises(UnknownNameError, match="generation setting 'enable_thinking'"):
        plain.generate("Why?", enable_thinking=True)


def test_stores_of_other_variables_are_told_apart(tmp_path: Path) -> None:
    """The chats here have replies, so what changes is the system message."""
    model, out = model_with(EFFORT), tmp_path / "store"
    plain = capture(model, corpus(), out=out)
    assert "template_variables" not in plain.provenance.parameters
    with pytest.raises(MismatchError):
        capture(model, corpus(), out=out, template_variables={"reasoning_effort": "high"})
    high = capture(model, corpus(), template_variables={"reasoning_effort": "high"})
    assert high.provenance.parameters["template_variables"] == {"reasoning_effort": "high"}
    loaded = capture(model_with(EFFORT, reasoning_effort="high"), corpus(), out=tmp_path / "high")
    assert loaded.fingerprint == high.fingerprint != plain.fingerprint
    same = capture(model, corpus(), template_variables={"reasoning_effort": "medium"})
    assert same.fingerprint != plain.fingerprint  # a default that is spelt out is a request
    assert ActivationStore.open(out).fingerprint == plain.fingerprint
    with pytest.raises(DataError, match="does not use 'effort'"):
        capture(model, corpus(), template_variables={"effort": "high"})


def test_packs_say_what_the_template_was_told() -> None:
    thinking = model_with(QWEN, enable_thinking=True)
    source = capture(thinking, corpus()).provenance
    assert pack_provenance(thinking, source, a=1).parameters == {
        "a": 1, "template_variables": {"enable_thinking": True},
    }  # fmt: skip
    assert pack_provenance(model_with(QWEN), source).parameters == {}


THOUGHT = "Let me see.\nYes.\n</think>\n\nI am glad."


@pytest.mark.parametrize(
    ("template", "variables", "reply", "opened"),
    [
        (R1, {}, THOUGHT, "<think>\n"),
        (R1, {}, f"<think>\n{THOUGHT}", "<think>\n"),
        (QWEN, {"enable_thinking": True}, f"<think>\n{THOUGHT}", ""),
    ],
)
def test_a_reply_with_thoughts_stands_behind_what_opens_it(
    template: str, variables: dict[str, Any], reply: str, opened: str
) -> None:
    """Prompt and reply are, token by token, what generation would have seen and written."""
    tokenizer = told(template)
    chat = [*ASKED, {"role": "assistant", "content": reply}]
    prompt = render(tokenizer, ASKED, add_generation_prompt=True, variables=variables).text
    assert prompt.endswith(f"<|im_start|>assistant\n{opened}")
    found = render(tokenizer, chat, add_generation_prompt=False, variables=variables)
    written = reply.removeprefix(opened)
    assert found.text == f"{prompt}{written}<|im_end|>\n"
    assert found.text[slice(*found.spans["reply"])] == written
    assert found.spans["prompt"] == (0, len(prompt))
    assert found.text[slice(*found.spans["user"])] == "Why?"
    row = encode(tokenizer, chat, add_generation_prompt=False, variables=variables)
    start, end = row.spans["reply"]
    assert tokenizer.decode(row.ids[:start]) == prompt
    assert tokenizer.decode(row.ids[start:end]) == written


def test_a_thought_that_the_template_opens_and_closes_is_prompt() -> None:
    tokenizer = told(QWEN)
    chat = [*ASKED, {"role": "assistant", "content": "I am glad."}]
    found = render(tokenizer, chat, add_generation_prompt=False)
    assert found.text[: found.spans["reply"][0]].endswith("assistant\n<think>\n\n</think>\n\n")
    assert found.text[slice(*found.spans["prompt"])] == prompt_of(QWEN)
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_template_that_prints_thoughts_is_taken_at_its_word() -> None:
    tokenizer = tiny_tokenizer()
    chat = [*ASKED, {"role": "assistant", "content": f"<think>\n{THOUGHT}"}]
    found = render(tokenizer, chat, add_generation_prompt=False)
    assert found.text == tokenizer.apply_chat_template(chat, tokenize=False)
    assert found.text[slice(*found.spans["reply"])] == f"<think>\n{THOUGHT}"
