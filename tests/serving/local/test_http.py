"""The local server over HTTP: what is refused, who is let in, packs at runtime, clients that go."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.serving.local.guards import GuardSettings
from affectlens.serving.local.limits import EngineLimits
from tests.serving.local.conftest import NAME, Client, MakeService, reading_pack, serving

CHAT, TEXT, PACKS = "/v1/chat/completions", "/v1/completions", "/plugins/affectlens/packs"
STATE = "/plugins/affectlens/state"
PROMPT = "The train was cancelled"
MESSAGES = [{"role": "user", "content": PROMPT}]
STRONG = "anger=6;mode=circuit"
LONG: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 60, "ignore_eos": True, "temperature": 0}


def complete(client: Client, spec: Any = None, **options: Any) -> str:
    xargs = {**options.pop("xargs", {}), **({} if spec is None else {"affectlens": spec})}
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, **options}
    status, reply = client.ask(TEXT, {**body, **({"vllm_xargs": xargs} if xargs else {})})
    assert status == 200, reply
    return reply["choices"][0]["text"]


def sentence(told: Any) -> str:
    assert set(told) == {"error"} and set(told["error"]) == {"message", "type", "param", "code"}
    return told["error"]["message"]


@pytest.mark.parametrize("path", [TEXT, CHAT])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 0.001}, "temperature must be 0 or at least 0.01"),
        ({"temperature": "warm"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n: "),
        ({"n": 9}, "9 replies are asked for at once; this server gives 8"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 65}, "Replies of this server have up to 64 tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "must not exceed"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ""}, "none of them empty"),
        ({"stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage"),
        ({"stop": ["a"] * 17}, "up to 16 strings"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not served here; use repetition"),
        ({"tools": [{"type": "function"}]}, "tools is not served here"),
        ({"temprature": 1}, "Unknown request field 'temprature'; choose one of: temperature"),
        ({"affectlens": "anger=1"}, "inside vllm_xargs"),
        ({"vllm_xargs": {"affectlens": "angr=1"}}, "Unknown emotion"),
        ({"vllm_xargs": {"affectlens": "anger=21"}}, "must lie between -20 and 20"),
        ({"vllm_xargs": {"affectlens_pack": "nope"}}, "Unknown steering pack 'nope'"),
        ({"vllm_xargs": {"affectlens_stength": 1}}, "Unknown steering option"),
        ({"vllm_xargs": {"affectlens": "anger=1", "affectlens_prompt": 3}}, "Unknown steering"),
        ({"vllm_xargs": {"affectlens_read": "perhaps"}}, "must be true or false"),
        ({"vllm_xargs": {"affectlens_read": True}, "n": 2}, "n=1"),
        ({"vllm_xargs": "anger=1"}, "vllm_xargs"),
        ({"steering": "anger"}, "Cannot read"),
        ({"steering": {"anger": "much"}}, "must be a number"),
        ({"steering": "anger=1", "vllm_xargs": {"affectlens": "fear=1"}}, "keep one"),
        ({"stop": "\ud800"}, "half a character"),
        ({"steering": "\ud800=1"}, "Unknown emotion"),
    ],
)
def test_bad_input_gets_a_sentence(
    client: Client, path: str, stream: bool, wrong: dict[str, Any], words: str
) -> None:
    subject = {"messages": MESSAGES} if path == CHAT else {"prompt": PROMPT}
    status, told = client.ask(path, {"max_tokens": 4, **subject, "stream": stream, **wrong})
    assert (status, words in sentence(told)) == (400, True), told


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (TEXT, b"{", "no JSON"),
        (TEXT, b"[" * 20_000, ""),
        (TEXT, b"\xff\xfe{}", ""),
        (TEXT, b'{"prompt": ' + b"9" * 6000 + b"}", ""),
        (TEXT, {}, "prompt"),
        (TEXT, {"prompt": ""}, "0 tokens"),
        (TEXT, {"prompt": []}, "empty"),
        (TEXT, {"prompt": [[]]}, "0 tokens"),
        (TEXT, {"prompt": [5, 6, 100_000]}, "outside the vocabulary"),
        (TEXT, {"prompt": [-1]}, "vocabulary"),
        (TEXT, {"prompt": [2**80]}, "vocabulary"),
        (TEXT, {"prompt": "word " * 300}, "this server takes 1 to"),
        (TEXT, {"prompt": "\udfff"}, "half a character"),
        (TEXT, {"prompt": "a", "logprobs": 21}, "logprobs"),
        (CHAT, {"messages": []}, "at least one message"),
        (CHAT, {"messages": [{"role": "oracle", "content": "a"}]}, "Unknown message role"),
        (CHAT, {"messages": [{"role": "user"}]}, "must be a text"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "holds an image",
        ),
        (
            CHAT,
            {"messages": [*MESSAGES, {"role": "system", "content": "a"}]},
            "A system message must come first",
        ),
        (CHAT, {"messages": MESSAGES, "top_logprobs": 3}, "needs logprobs"),
        (CHAT, {"messages": MESSAGES, "chat_template_kwargs": {"a": 1}}, "does not use 'a'"),
    ],
)
def test_bodies_that_make_no_sense(client: Client, path: str, body: Any, words: str) -> None:
    status, told = client.ask(path, body)
    assert (status, words in sentence(told)) == (400, True), told
    assert complete(client)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", CHAT, 405), ("PUT", "/health", 405)],
)
def test_other_routes(client: Client, method: str, path: str, status: int) -> None:
    code, told = client.ask(path, method=method)
    assert code == status and sentence(told)


def test_what_changes_nothing_is_passed_over(client: Client) -> None:
    plain = complete(client)
    idle = {"user": "me", "frequency_penalty": 0, "logit_bias": None, "tools": [], "top_k": -1}
    assert complete(client, **idle) == plain


def test_a_spec_has_three_forms(client: Client) -> None:
    wanted = complete(client, "anger=2;mode=circuit")
    assert wanted != complete(client)
    assert complete(client, steering="anger=2;mode=circuit") == wanted
    assert complete(client, steering={"anger": 2, "mode": "circuit"}) == wanted
    spec = json.dumps({"weights": {"anger": 2}, "mode": "circuit"})
    assert complete(client, spec) == wanted


def test_contents_in_parts_and_the_developer(client: Client) -> None:
    def ask(messages: Any) -> str:
        status, reply = client.ask(CHAT, {"messages": messages, "temperature": 0, "max_tokens": 9})
        assert status == 200, reply
        return reply["choices"][0]["message"]["content"]

    parts = [{"type": "text", "text": "The train"}, {"type": "text", "text": " was cancelled"}]
    assert ask([{"role": "user", "content": parts}]) == ask(MESSAGES)
    system = {"content": "You are a person"}
    developer = ask([{"role": "developer", **system}, *MESSAGES])
    assert developer == ask([{"role": "system", **system}, *MESSAGES]) != ask(MESSAGES)


def test_tokens_are_a_prompt_too(client: Client) -> None:
    assert client.service is not None
    ids = client.service.encode_text(PROMPT)
    assert complete(client, prompt=list(ids)) == complete(client)
    body = {"prompt": [list(ids), [5, 6]], "max_tokens": 12, "temperature": 0}
    status, reply = client.ask(TEXT, body)
    assert status == 200
    texts = [choice["text"] for choice in reply["choices"]]
    assert texts == [complete(client), complete(client, prompt=[5, 6])]
    assert reply["usage"]["prompt_tokens"] == len(ids) + 2


def test_seeds_are_those_of_generate(client: Client) -> None:
    assert client.service is not None
    model = client.service.engine.model
    options = {"temperature": 0.9, "top_p": 0.8, "seed": 11}
    status, reply = client.ask(CHAT, {"messages": MESSAGES, "max_tokens": 12, "n": 3, **options})
    assert status == 200
    found = [choice["message"]["content"].strip() for choice in reply["choices"]]
    assert found == model.generate([PROMPT] * 3, max_new_tokens=12, **options)


def test_chats_end_at_the_servers_longest_reply(client: Client) -> None:
    status, reply = client.ask(CHAT, {"messages": MESSAGES, "ignore_eos": True})
    assert (status, reply["usage"]["completion_tokens"]) == (200, 64)
    status, reply = client.ask(TEXT, {"prompt": PROMPT, "ignore_eos": True})
    assert (status, reply["usage"]["completion_tokens"]) == (200, 16)


def test_completion_logprobs(client: Client) -> None:
    body = {"prompt": PROMPT, "max_tokens": 5, "logprobs": 2, "temperature": 0}
    body |= {"repetition_penalty": 1, "ignore_eos": True}
    _, reply = client.ask(TEXT, body)
    choice = reply["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"][0] == 0 and len(found["text_offset"]) == 5
    for token, value, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[token] == value == max(top.values())


# Clients that go.


def opened(client: Client, body: dict[str, Any], path: str = TEXT) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    return connection


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_frees_its_place(client: Client, stream: bool) -> None:
    assert client.service is not None
    engine = client.service.engine
    wanted = complete(client, STRONG, max_tokens=50, ignore_eos=True)
    for _ in range(4):
        before = engine.state()["tokens"]
        connections = [
            opened(client, {**LONG, "n": 8, "stream": stream, "steering": "fear=3"})
            for _ in range(3)
        ]
        deadline = time.monotonic() + 20
        while engine.state()["tokens"] < before + 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        if stream:
            assert connections[0].getresponse().read(20).startswith(b"data: ")
        for connection in connections:
            connection.close()
        assert complete(client, STRONG, max_tokens=50, ignore_eos=True) == wanted
        assert client.idle()
        assert engine.state()["tokens"] - before < 3 * 8 * 60
    assert engine.state()["slots_in_use"] == 0 and engine.users("tiny") == 0


def test_half_a_request_harms_nobody(client: Client) -> None:
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=5)
    connection.putrequest("POST", TEXT)
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b'{"prompt": ')
    assert complete(client)
    connection.close()
    assert complete(client)


# Who is let in.


@pytest.fixture(scope="module")
def guarded(make_service: MakeService) -> Iterator[Client]:
    """Small, with a key, steering by default, and loading nothing."""
    limits = EngineLimits(rows=1, waiting=1, reply=120)
    guards = GuardSettings("a secret", max_body=2000)
    service = make_service(
        limits=limits, guards=guards, default=STRONG, pack_folder=None, max_packs=1
    )
    with serving(service) as found:
        yield found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("path", [TEXT, "/v1/models", PACKS, STATE, "/openapi.json", "/nothing"])
def test_the_key_is_asked_for(guarded: Client, path: str) -> None:
    for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": "a secret"}):
        status, told = guarded.ask(path, **headers)
        assert (status, "API key" in sentence(told)) == (401, True)
    assert guarded.ask(path, **bearer("a secret"))[0] != 401


def test_health_and_metrics_need_no_key(guarded: Client) -> None:
    assert guarded.ask("/health")[0] == guarded.ask("/metrics")[0] == 200


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Host": "evil.example"}, "this machine only"),
        ({"Host": "evil.example:80"}, "this machine only"),
        ({"Origin": "https://evil.example"}, "other origins"),
        ({"Origin": "null"}, "other origins"),
    ],
)
def test_pages_of_the_web_are_kept_out(client: Client, headers: dict[str, str], words: str) -> None:
    status, told = client.ask("/v1/models", **headers)
    assert (status, words in sentence(told)) == (403, True)
    assert client.ask("/v1/models", Origin=client.url)[0] == 200


def test_bodies_that_are_too_large(guarded: Client) -> None:
    body = {"prompt": "a" * 3000}
    status, told = guarded.ask(TEXT, body, **bearer("a secret"))
    assert (status, "this server takes 2,000" in sentence(told)) == (413, True)
    connection = http.client.HTTPConnection(guarded.url.removeprefix("http://"), timeout=10)
    parts = iter([b"a" * 1500, b"a" * 1500])
    connection.request("POST", TEXT, parts, bearer("a secret"), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_too_many_are_told_to_come_again(guarded: Client) -> None:
    from openai import OpenAI, RateLimitError

    first = opened_with_key(guarded)
    second = opened_with_key(guarded)
    assert guarded.service is not None
    deadline = time.monotonic() + 20
    while guarded.service.engine.state()["waiting"] < 1 and time.monotonic() < deadline:
        time.sleep(0.002)
    with OpenAI(base_url=f"{guarded.url}/v1", api_key="a secret", max_retries=0) as client:
        with pytest.raises(RateLimitError, match="try again in a moment"):
            client.completions.create(model=NAME, prompt="a")
        for connection in (first, second):
            assert connection.getresponse().status == 200
            connection.close()
        assert guarded.idle()
        assert client.completions.create(model=NAME, prompt="a").choices


def opened_with_key(client: Client) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(client.url.removeprefix("http://"), timeout=60)
    headers = {"Content-Type": "application/json", **bearer("a secret")}
    connection.request("POST", TEXT, json.dumps({**LONG, "max_tokens": 120}), headers)
    return connection


def test_a_default_steers_everybody_who_does_not_opt_out(guarded: Client, client: Client) -> None:
    def ask(spec: str | None) -> str:
        body: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        body |= {} if spec is None else {"steering": spec}
        return guarded.ask(TEXT, body, **bearer("a secret"))[1]["choices"][0]["text"]

    assert ask(None) == complete(client, STRONG) != ask("none")
    assert ask("none") == complete(client)


def test_packs_are_not_loaded_unless_allowed(guarded: Client) -> None:
    given = {"name": "x", "path": "llama-second.safetensors"}
    for method, path, body in (("POST", PACKS, given), ("DELETE", f"{PACKS}/tiny", None)):
        status, told = guarded.ask(path, body, method, **bearer("a secret"))
        assert (status, "pack_folder" in sentence(told)) == (403, True)


# Packs at runtime.


def test_packs_come_and_go(client: Client, pack_folder: Path) -> None:
    wanted = complete(client, STRONG)
    status, told = client.ask(PACKS, {"name": "second", "path": "llama-second.safetensors"})
    assert status == 200 and told["reads"], told
    listed = client.ask(PACKS)[1]["packs"]
    assert [(one["name"], one["default"]) for one in listed] == [("tiny", True), ("second", False)]
    named = {"xargs": {"affectlens_pack": "second"}}
    other = complete(client, STRONG, **named)
    assert other not in (wanted, complete(client))
    status, told = client.ask(PACKS, {"name": "second", "path": "llama-second.safetensors"})
    assert (status, "loaded already" in sentence(told)) == (409, True)

    # One that is used stays until its last reply has ended.
    found: list[str] = []
    long = {**LONG, "xargs": {"affectlens_pack": "second"}}
    threads = [
        threading.Thread(target=lambda: found.append(complete(client, STRONG, **long)))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while not client.ask(STATE)[1]["packs"]["second"] and time.monotonic() < deadline:
        time.sleep(0.002)
    status, told = client.ask(f"{PACKS}/second?wait=0", method="DELETE")
    assert (status, "under way" in sentence(told)) == (409, True)
    # It may be replaced at once: those that began with it end with it.
    shutil.copy(pack_folder / "llama-tiny.safetensors", pack_folder / "third.safetensors")
    body = {"name": "second", "path": "third.safetensors", "replace": True}
    assert client.ask(PACKS, body)[0] == 200
    assert complete(client, STRONG, **named) == wanted
    for thread in threads:
        thread.join(60)
    assert len(set(found)) <= 2 and len(found) == 12
    status, told = client.ask(f"{PACKS}/second?wait=60", method="DELETE")
    assert (status, told) == (200, {"unloaded": "second"})
    status, told = client.ask(TEXT, {"prompt": "a", "vllm_xargs": named["xargs"]})
    assert (status, "Unknown steering pack" in sentence(told)) == (400, True)
    assert complete(client, STRONG) == wanted


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "x", "path": "../log"}, 403, "not in the folder"),
        ({"name": "x", "path": "/etc/passwd"}, 403, "not in the folder"),
        ({"name": "x", "path": "a\0b"}, 400, "no path"),
        ({"name": "x", "path": "\ud800"}, 400, ""),
        ({"name": "x", "path": "none.safetensors"}, 400, "no file"),
        ({"name": "x", "path": "bad.safetensors"}, 400, "damaged"),
        ({"name": "x", "path": "other.safetensors"}, 400, "was made for model"),
        ({"name": "a b", "path": "llama-second.safetensors"}, 400, "letters"),
        ({"name": "x"}, 400, "as JSON"),
        ({"name": "x", "path": "y", "replace": 1}, 400, "true or false"),
        (b"{", 400, "as JSON"),
        ([], 400, "as JSON"),
    ],
)
def test_packs_that_cannot_be_loaded(
    client: Client, pack_folder: Path, tiny_model: Any, body: Any, status: int, words: str
) -> None:
    (pack_folder / "bad.safetensors").write_text("hello")
    reading_pack(tiny_model("llama", 1)).save(pack_folder / "other.safetensors")
    code, told = client.ask(PACKS, body)
    assert (code, words in sentence(told)) == (status, True), told
    assert [one["name"] for one in client.ask(PACKS)[1]["packs"]] == ["tiny"]


def test_unloading_badly(client: Client) -> None:
    status, told = client.ask(f"{PACKS}/nope", method="DELETE")
    assert (status, "choose one of: tiny" in sentence(told)) == (404, True)
    for wait in ("soon", "-1", "nan"):
        status, told = client.ask(f"{PACKS}/tiny?wait={wait}", method="DELETE")
        assert (status, "seconds" in sentence(told)) == (400, True)


def test_a_pack_that_changes_on_disk_changes_nothing_that_is_served(
    client: Client, pack_folder: Path
) -> None:
    wanted = complete(client, STRONG)
    file = pack_folder / "llama-tiny.safetensors"
    before = file.read_bytes()
    try:
        shutil.copy(pack_folder / "llama-second.safetensors", file)
        assert complete(client, STRONG) == wanted
    finally:
        file.write_bytes(before)


# Figures.


def figures(client: Client) -> dict[str, float]:
    lines = client.ask("/metrics")[1].splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("affectlens_")]
    return {name: float(value) for name, value in pairs if "_created" not in name}


def test_metrics_move_with_requests(client: Client) -> None:
    before = figures(client)
    complete(client, STRONG, ignore_eos=True)
    complete(client, xargs={"affectlens_read": True})
    client.ask(TEXT, {"prompt": PROMPT, "steering": "angr=1"})
    after = figures(client)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown('affectlens_requests_steered_total{pack="tiny"}') == 1
    assert grown('affectlens_requests_read_total{pack="tiny"}') == 1
    assert grown("affectlens_requests_refused_total") == 1
    assert grown("affectlens_tokens_steered_total") == 11  # circuit: what is generated, fed back
    assert 13 <= grown("affectlens_tokens_total") <= 24
    assert grown('affectlens_replies_total{end="length"}') >= 1
    assert grown("affectlens_first_token_seconds_count") == 2
    # The answer is out a moment before its slot is free again.
    for _ in range(200):
        if after["affectlens_slots_in_use"] == after["affectlens_replies_running"] == 0:
            break
        time.sleep(0.05)
        after = figures(client)
    assert after["affectlens_slots_in_use"] == after["affectlens_replies_running"] == 0
    assert after["affectlens_packs_loaded"] == 1


def test_the_check_finds_that_it_steers(client: Client) -> None:
    arguments = ["serve", "--check", client.url]
    result = CliRunner().invoke(app, [*arguments, "--spec", STRONG])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok  ") == 6
    weak = CliRunner().invoke(app, [*arguments, "--spec", "anger=0.000001"])
    assert (weak.exit_code, "changes nothing" in weak.stdout) == (1, True)


def test_no_stop_string_ends_a_reply_before_its_least_length(client: Client) -> None:
    whole = complete(client)
    first = whole.strip()[0]
    assert complete(client, stop=first) != whole
    assert complete(client, stop=first, min_tokens=12) == whole
