"""What every server that steers answers to the real `openai` client, whatever it runs on.

Collected by whoever has a server: fixtures ``url``, ``model_name`` and ``spec`` (a strong one).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

PROMPT = "my train was late today and the dog ran home"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
WRONG_SPECS: Any = (
    ("angr=1", "Unknown emotion 'angr'; choose one of: anger"),
    ("anger=nan", "must lie between"),
    ("anger=1e9", "must lie between"),
    ("anger", "Cannot read"),
    ("anger=1;mode=x", "Unknown mode"),
    ("anger=1;gate=anger>2", "Cannot read the gate"),
    ("{", "cannot be read as JSON"),
    (3, "A steering spec is a text"),
    (["anger=1"], "A steering spec is a text"),
)
"""What is no spec, and what is said of it."""


@pytest.fixture
def openai_client(url: str) -> Iterator[Any]:
    import openai

    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def extra(spec: Any, **more: Any) -> dict[str, Any]:
    given = {**({} if spec is None else {"affectlens": spec}), **more}
    return {"extra_body": {"repetition_penalty": 1.1, "vllm_xargs": given} if given else {}}


def chat(client: Any, name: str, spec: Any = None, **options: Any) -> Any:
    more = options.pop("xargs", {})
    given = {"model": name, "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **options}
    return client.chat.completions.create(**given, **extra(spec, **more))


def text(client: Any, name: str, spec: Any = None, **options: Any) -> str:
    return chat(client, name, spec, **options).choices[0].message.content


def test_a_chat_is_steered(openai_client: Any, model_name: str, spec: str) -> None:
    reply = chat(openai_client, model_name, spec)
    choice = reply.choices[0]
    assert reply.object == "chat.completion" and choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == 12 or choice.finish_reason == "stop"
    plain = text(openai_client, model_name, "none")
    assert choice.message.content != plain
    assert text(openai_client, model_name, spec) == choice.message.content
    assert text(openai_client, model_name, "none") == plain


def test_completions_of_several_prompts(openai_client: Any, model_name: str, spec: str) -> None:
    def ask(prompt: Any, **options: Any) -> list[str]:
        given = {"model": model_name, "max_tokens": 8, "temperature": 0, **options}
        reply = openai_client.completions.create(prompt=prompt, **given, **extra(spec))
        assert [choice.index for choice in reply.choices] == list(range(len(reply.choices)))
        return [choice.text for choice in reply.choices]

    other = "she was sad when they left"
    assert ask([PROMPT, other]) == [*ask(PROMPT), *ask(other)]


def test_streams_say_what_replies_say(openai_client: Any, model_name: str, spec: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(chat(openai_client, model_name, spec, **options))
    whole = chat(openai_client, model_name, spec)
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(parts) == whole.choices[0].message.content
    ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_readings_of_a_stream_are_those_of_the_reply(
    openai_client: Any, model_name: str, spec: str
) -> None:
    read = {"xargs": {"affectlens_read": True}}
    whole = chat(openai_client, model_name, spec, **read)
    wanted = whole.kv_transfer_params["affectlens"]
    assert len(wanted["tokens"]) == whole.usage.completion_tokens
    for layers in (*wanted["tokens"], wanted["reply"]):
        assert len(layers) == len(wanted["layers"])
        for shares in layers:
            assert len(shares) == len(wanted["classes"])
            assert sum(shares) == pytest.approx(1, abs=1e-4)
    chunks = list(chat(openai_client, model_name, spec, stream=True, **read))
    found = [chunk.affectlens for chunk in chunks if getattr(chunk, "affectlens", None)]
    tokens = [token for part in found for token in part["tokens"]]
    assert tokens == wanted["tokens"]
    assert found[-1]["reply"] == wanted["reply"]


def test_seeds_and_several_replies(openai_client: Any, model_name: str, spec: str) -> None:
    def ask(seed: int) -> list[str]:
        reply = chat(openai_client, model_name, spec, n=3, temperature=1, seed=seed)
        return [choice.message.content for choice in reply.choices]

    first = ask(7)
    assert ask(7) == first and len(set(first)) > 1
    assert ask(8) != first


def test_stop_strings(openai_client: Any, model_name: str, spec: str) -> None:
    whole = text(openai_client, model_name, spec, max_tokens=30)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    reply = chat(openai_client, model_name, spec, max_tokens=30, stop=[stop, "no such text"])
    assert reply.choices[0].message.content == whole[: whole.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    chunks = chat(openai_client, model_name, spec, max_tokens=30, stop=stop, stream=True)
    parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(parts) == whole[: whole.index(stop)]


def test_logprobs(openai_client: Any, model_name: str, spec: str) -> None:
    options = {"logprobs": True, "top_logprobs": 2}
    reply = chat(openai_client, model_name, spec, **options)
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens
    assert all(len(one.top_logprobs) >= 2 and one.logprob <= 0 for one in content)
    chunks = list(chat(openai_client, model_name, spec, stream=True, **options))
    streamed = [
        one
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content
    ]
    assert [one.token for one in streamed] == [one.token for one in content]


def test_different_requests_share_batches(openai_client: Any, model_name: str, spec: str) -> None:
    other = spec.replace("anger", "fear")
    specs = [None, "none", spec, other, f"{other};positions=all", f"{spec};gate=anger>0.1"]
    alone = [text(openai_client, model_name, one) for one in specs]
    assert len(set(alone)) >= 3
    found: dict[int, str] = {}

    def ask(i: int) -> None:
        found[i] = text(openai_client, model_name, specs[i])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [found[i] for i in range(len(specs))] == alone


@pytest.mark.parametrize(("wrong", "words"), WRONG_SPECS)
def test_bad_specs_get_a_sentence(
    openai_client: Any, model_name: str, wrong: Any, words: str
) -> None:
    import openai

    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(openai_client, model_name, wrong, stream=stream)
        assert words in str(caught.value)
    assert text(openai_client, model_name, "none")


def test_models_are_listed(openai_client: Any, model_name: str) -> None:
    assert model_name in [model.id for model in openai_client.models.list()]


def test_a_model_that_is_not_there(openai_client: Any) -> None:
    import openai

    with pytest.raises(openai.NotFoundError):
        chat(openai_client, "no-such-model")


def test_token_ids_are_told_where_they_are_asked_for(openai_client, model_name, spec):
    """The same places for both servers; the tokens of a stream are those of the whole reply."""
    more = {"return_token_ids": True, "repetition_penalty": 1.1}
    body = {**more, "vllm_xargs": {"affectlens": spec}}
    given: Any = {"model": model_name, "max_tokens": 8, "temperature": 0, "extra_body": body}

    whole = openai_client.chat.completions.create(messages=MESSAGES, **given)
    told = whole.choices[0].model_dump()["token_ids"]
    assert len(told) == whole.usage.completion_tokens
    prompt = whole.model_dump()["prompt_token_ids"]
    assert len(prompt) == whole.usage.prompt_tokens
    parts = list(openai_client.chat.completions.create(messages=MESSAGES, stream=True, **given))
    assert parts[0].model_dump()["prompt_token_ids"] == prompt
    choices = [part.choices[0].model_dump() for part in parts if part.choices]
    assert [i for choice in choices for i in choice.get("token_ids") or ()] == told

    whole = openai_client.completions.create(prompt=prompt, **given)
    assert whole.choices[0].model_dump()["prompt_token_ids"] == prompt
    assert whole.choices[0].model_dump()["token_ids"] == told
    parts = list(openai_client.completions.create(prompt=prompt, stream=True, **given))
    choices = [part.choices[0].model_dump() for part in parts if part.choices]
    assert choices[0]["prompt_token_ids"] == prompt
    assert [i for choice in choices for i in choice.get("token_ids") or ()] == told

    plain = openai_client.chat.completions.create(
        messages=MESSAGES, **{**given, "extra_body": {"repetition_penalty": 1.1}}
    )
    assert not plain.choices[0].model_dump().get("token_ids")


def _events(url: str, **options: Any) -> Any:
    import httpx

    body = options.pop("body", None)
    with httpx.Client(trust_env=False, timeout=120) as client:
        return client.request(
            options.pop("method", "GET" if body is None else "POST"),
            f"{url}/v1/affectlens/events",
            params=options,
            json=body,
        )


def test_events_are_lines_of_json(url: str, model_name: str, spec: str) -> None:
    import httpx

    from affectlens.serving.emotion_events import events_of, read_along

    asked = {"model": model_name, "messages": MESSAGES, "max_tokens": 6, "temperature": 0}
    steered = {**asked, "vllm_xargs": {"affectlens": spec}}
    answer = _events(url, body=steered)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = [json.loads(line) for line in answer.text.splitlines()]
    with httpx.Client(trust_env=False, timeout=120) as client:
        stream = client.post(f"{url}/v1/chat/completions", json=read_along(steered)).text
    wanted = [one.to_dict() for one in events_of(stream.splitlines())]
    times = [one.pop("time") for one in found]
    assert times == sorted(times) and times[0] >= 0 and len(found) > 2
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours["index"], ours["text"]) == (theirs["index"], theirs["text"])
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=0.02)
        assert ours.keys() == theirs.keys() - {"time"}
    plain = [json.loads(line)["text"] for line in _events(url, body=asked).text.splitlines()]
    assert [one["text"] for one in found] != plain
    asked = _events(url, prompt=PROMPT, emotion=spec, max_tokens=3, model=model_name)
    assert asked.status_code == 200 and 0 < len(asked.text.splitlines()) <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": PROMPT, "emotion": "angr=1"}, "Unknown emotion"),
        ({"prompt": PROMPT, "layer": 999}, "not behind 999"),
        ({"prompt": PROMPT, "max_tokens": 0}, "whole number from 1"),
        ({"prompt": PROMPT, "max_tokens": "1_0"}, "whole number from 1"),
        ({"prompt": PROMPT, "layer": "-1"}, "whole number from 0"),
        ({"prompt": PROMPT, "steer": "anger=1"}, "Unknown option 'steer'"),
        ({}, "Give what the user says"),
        ({"body": {"messages": MESSAGES, "n": 2}}, "leave n out"),
        ({"body": [1]}, "chat request as JSON"),
        ({"body": {"messages": MESSAGES, "vllm_xargs": 3}}, "chat request as JSON"),
    ],
)
def test_events_that_cannot_be_given(url: str, options: Any, words: str) -> None:
    answer = _events(url, **options)
    assert answer.status_code in (400, 404)
    assert words in answer.json()["error"]["message"]


def test_events_of_a_body_that_nests_without_end(url: str) -> None:
    import httpx

    with httpx.Client(trust_env=False, timeout=120) as client:
        answer = client.post(f"{url}/v1/affectlens/events", content=b"[" * 200_000)
    assert answer.status_code == 400 and "as JSON" in answer.json()["error"]["message"]


def test_events_by_another_verb(url: str) -> None:
    assert _events(url, method="PUT", prompt=PROMPT).status_code == 405
