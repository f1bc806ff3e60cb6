"""A real server: every way clients may ask, packs while it runs, metrics, keys and checks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import ModelError
from affectlens.steering.spec import POSITIONS
from tests.serving.http_cases import WRONG_SPECS
from tests_vllm.cases import FOLDER
from tests_vllm.serving import NAME, PROMPT, Client, pack, started

PACKS = "/plugins/affectlens/packs"
STATE = "/plugins/affectlens/state"
KEY = "a secret"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": PROMPT}]
STRONG = "anger=6;mode=circuit"
READING: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 12, "affectlens_read": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From which packs may be loaded."""
    found = tmp_path_factory.mktemp("packs")
    for name in ("second", "wide", "other"):
        shutil.copy(FOLDER / f"{name}.safetensors", found)
    (found / "bad.safetensors").write_text("hello")
    return found


@pytest.fixture(scope="module")
def client(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    log = tmp_path_factory.mktemp("server") / "log"
    with started(log, [pack("tiny")], pack_folder=str(folder)) as found:
        first = found.reply(CHAT, STRONG, **READING, stream=True)
        require_equal_readings(found, CHAT, first, READING)
        yield found
    # Whatever was refused, nothing went wrong.
    assert "Traceback" not in log.read_text(errors="replace")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Steers by default, wants a key, and loads no packs."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    with started(log, [pack("tiny")], key=KEY, default=STRONG) as found:
        yield found


def sentence(body: Any) -> str:
    return body["error"]["message"]


def test_completions_in_one_batch_of_many_kinds(client: Client) -> None:
    specs = [None, "none", "anger=6", STRONG, "fear=5;positions=all", "anger=6;gate=anger>0.1"]
    alone = [client.complete(spec) for spec in specs]
    assert alone[0] == alone[1]
    assert len({tuple(texts) for texts in alone}) >= 4
    found: dict[int, list[str]] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.setdefault(i, client.complete(specs[i])))
        for i in range(len(specs))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(specs))] == alone


def chat_text(client: Client, spec: str | None, **options: Any) -> str:
    status, body = client.reply(CHAT, spec, messages=MESSAGES, max_tokens=12, **options)
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def test_every_route_that_makes_text_steers_alike(client: Client) -> None:
    plain, steered = chat_text(client, None), chat_text(client, STRONG)
    assert plain != steered
    for spec, wanted in ((None, plain), (STRONG, steered)):
        status, body = client.reply("/v1/responses", spec, input=PROMPT, max_output_tokens=12)
        assert status == 200, body
        assert body["output"][0]["content"][0]["text"] == wanted
        status, body = client.reply("/v1/messages", spec, messages=MESSAGES, max_tokens=12)
        assert status == 200, body
        assert body["content"][0]["text"] == wanted
        status, body = client.reply(
            "/v1/chat/completions/batch", spec, messages=[MESSAGES, MESSAGES], max_tokens=12
        )
        assert status == 200, body
        assert [choice["message"]["content"] for choice in body["choices"]] == [wanted, wanted]


def test_streams_say_the_same(client: Client) -> None:
    status, stream = client.reply(CHAT, STRONG, messages=MESSAGES, max_tokens=12, stream=True)
    assert status == 200
    events = [line[6:] for line in stream.splitlines() if line.startswith("data: {")]
    parts = [json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events]
    assert "".join(parts) == chat_text(client, STRONG)


def require_equal_readings(
    client: Client, path: str, streamed: tuple[int, Any], options: dict[str, Any]
) -> None:
    """A stream's chunks carry, one after another, what the whole reply carries at once."""
    status, stream = streamed
    assert status == 200, stream
    status, whole = client.reply(path, STRONG, **options)
    wanted = whole["kv_transfer_params"]["affectlens"]
    assert len(wanted["tokens"]) == whole["usage"]["completion_tokens"] > 3
    events = [json.loads(ln[6:]) for ln in stream.splitlines() if ln.startswith("data: {")]
    parts = [event["affectlens"] for event in events if "affectlens" in event]
    assert len(parts) > 2
    assert [token for part in parts for token in part["tokens"]] == wanted["tokens"]
    assert parts[-1]["reply"] == wanted["reply"]
    assert parts[0]["classes"] == wanted["classes"]


def test_streams_carry_readings(client: Client) -> None:
    options = {"prompt": PROMPT, "max_tokens": 12, "affectlens_read": True}
    streamed = client.reply("/v1/completions", STRONG, **options, stream=True)
    require_equal_readings(client, "/v1/completions", streamed, options)
    status, stream = client.reply(CHAT, STRONG, messages=MESSAGES, max_tokens=12, stream=True)
    assert (status, "affectlens" in stream) == (200, False)


def test_several_replies_are_all_steered(client: Client) -> None:
    """Sampled replies of a steered request, against each of them asked for alone."""
    options = {"n": 3, "temperature": 1, "seed": 5}
    assert client.complete(STRONG, **options) != client.complete(**options)
    assert client.complete(STRONG, **options) == client.complete(STRONG, **options)


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_beam_of_one_is_a_greedy_reply(client: Client, positions: str) -> None:
    spec = f"anger=6;mode=circuit;positions={positions}"
    wanted = client.complete(spec, max_tokens=10)
    assert client.complete(spec, max_tokens=10, use_beam_search=True, n=1) == wanted
    assert wanted != client.complete(max_tokens=10)


def test_beams_are_steered(client: Client) -> None:
    beams = client.complete(STRONG, use_beam_search=True, n=3)
    assert len(set(beams)) == 3
    assert not set(beams) & set(client.complete(use_beam_search=True, n=3))


@pytest.mark.parametrize(("spec", "words"), WRONG_SPECS)
def test_bad_specs_get_400_and_a_sentence(client: Client, spec: Any, words: str) -> None:
    assert words in client.refused(spec)
    assert words in client.refused(spec, use_beam_search=True, n=2)
    assert words in client.refused(spec, path=CHAT, messages=MESSAGES)
    assert words in client.refused(spec, path=CHAT, messages=MESSAGES, stream=True)
    assert words in client.refused(spec, stream=True)
    assert client.complete("none")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"affectlens_pack": "nope"}, "Unknown steering pack 'nope'"),
        ({"affectlens_pack": ["tiny"]}, "Unknown steering pack"),
        ({"affectlens_stength": "1"}, "Unknown steering option"),
        ({"affectlens_prompt": 2}, "Unknown steering option"),
        ({"affectlens_read": "perhaps"}, "must be true or false"),
        ({"affectlens_read": True, "n": 2, "temperature": 1}, "n=1"),
        ({"affectlens_read": True, "prompt": ["a", "b"]}, "one prompt per request"),
        ({"affectlens_read": True, "use_beam_search": True}, "Beam search gives no readings"),
    ],
)
def test_what_cannot_be_given_is_refused(
    client: Client, options: dict[str, Any], words: str
) -> None:
    assert words in client.refused("anger=1", **options)


@pytest.mark.parametrize("path", ["/v1/completions", CHAT, "/v1/responses", f"{CHAT}/batch"])
def test_a_spec_in_the_wrong_place_is_not_dropped(client: Client, path: str) -> None:
    bodies = {
        "/v1/completions": {"prompt": PROMPT},
        CHAT: {"messages": MESSAGES},
        "/v1/responses": {"input": PROMPT},
        f"{CHAT}/batch": {"messages": [MESSAGES]},
    }
    status, body = client.ask(path, {"model": NAME, "affectlens": "anger=1", **bodies[path]})
    assert status == 400
    assert "inside vllm_xargs" in sentence(body)


def test_no_readings_of_a_batch(client: Client) -> None:
    status, body = client.reply(
        f"{CHAT}/batch", None, messages=[MESSAGES], max_tokens=2, affectlens_read=True
    )
    assert (status, "one prompt per request" in sentence(body)) == (400, True)


def test_packs_come_and_go(client: Client) -> None:
    wanted = client.complete(STRONG)
    assert "Unknown steering pack" in client.refused(STRONG, affectlens_pack="second")
    status, body = client.ask(PACKS, {"name": "second", "path": "second.safetensors"})
    assert status == 200, body
    status, body = client.ask(PACKS)
    assert [(one["name"], one["default"]) for one in body["packs"]] == [
        ("tiny", True),
        ("second", False),
    ]
    other = client.complete(STRONG, affectlens_pack="second")
    assert other not in (wanted, client.complete())
    status, body = client.ask(PACKS, {"name": "third", "path": "second.safetensors"})
    assert (status, "no room" in sentence(body)) == (409, True)
    status, body = client.ask(PACKS, {"name": "second", "path": "second.safetensors"})
    assert (status, "loaded already" in sentence(body)) == (409, True)

    # A pack in use stays until its last request has ended.
    replies: list[list[str]] = []
    long = {"max_tokens": 150, "ignore_eos": True, "affectlens_pack": "second"}
    long["prompt"] = [PROMPT] * 40  # more than run at once
    used = 0
    while not used:  # a machine that stood still may have missed all of it
        replies.clear()
        thread = threading.Thread(target=lambda: replies.append(client.complete(STRONG, **long)))
        thread.start()
        while thread.is_alive() and not used:
            used = client.ask(STATE)[1]["packs"]["second"]
        assert used or replies
    status, body = client.ask(f"{PACKS}/second?wait=0", method="DELETE")
    assert (status, "under way" in sentence(body)) == (409, True)
    status, body = client.ask(f"{PACKS}/second?wait=60", method="DELETE")
    assert (status, body) == (200, {"unloaded": "second"})
    thread.join(300)
    assert not thread.is_alive()
    assert replies[0] == client_again(client, long)
    assert "Unknown steering pack" in client.refused(STRONG, affectlens_pack="second")
    assert client.complete(STRONG) == wanted


def client_again(client: Client, long: dict[str, Any]) -> list[str]:
    """The long reply once more, in peace."""
    client.ask(PACKS, {"name": "second", "path": "second.safetensors"})
    found = client.complete(STRONG, **long)
    assert client.ask(f"{PACKS}/second", method="DELETE")[0] == 200
    return found


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "x", "path": "../log"}, 403, "not in the folder"),
        ({"name": "x", "path": "/etc/passwd"}, 403, "not in the folder"),
        ({"name": "x", "path": "none.safetensors"}, 400, "no file"),
        ({"name": "x", "path": "bad.safetensors"}, 400, "damaged"),
        ({"name": "x", "path": "wide.safetensors"}, 400, "width 96"),
        ({"name": "x", "path": "other.safetensors"}, 400, "was made for model"),
        ({"name": "a b", "path": "second.safetensors"}, 400, "letters"),
        ({"name": "x"}, 400, "as JSON"),
        (b"{", 400, "as JSON"),
        ([], 400, "as JSON"),
    ],
)
def test_packs_that_cannot_be_loaded(client: Client, body: Any, status: int, words: str) -> None:
    code, told = client.ask(PACKS, body)
    assert (code, words in sentence(told)) == (status, True), told
    assert [one["name"] for one in client.ask(PACKS)[1]["packs"]] == ["tiny"]


def test_unloading_badly(client: Client) -> None:
    status, body = client.ask(f"{PACKS}/nope", method="DELETE")
    assert (status, "choose one of: tiny" in sentence(body)) == (404, True)
    status, body = client.ask(f"{PACKS}/tiny?wait=soon", method="DELETE")
    assert (status, "seconds" in sentence(body)) == (400, True)


def test_metrics_move_with_requests(client: Client) -> None:
    before = client.metrics()
    client.complete(STRONG)
    client.complete("fear=1;positions=prompt")
    client.complete()
    client.refused("angr=1")
    after = client.metrics()
    steered = 'affectlens_requests_steered_total{pack="tiny"}'
    assert after[steered] - before[steered] == 2
    name = "affectlens_requests_refused_total"
    assert after[name] - before[name] == 1
    name = "affectlens_tokens_steered_total"
    prompt = client.reply("/v1/completions", prompt=PROMPT)[1]["usage"]["prompt_tokens"]
    # At most the last token of the prompt and the tokens fed back, and the other's whole prompt.
    assert 12 <= after[name] - before[name] <= 12 + prompt
    assert after["affectlens_slots_in_use"] == 0
    assert after["affectlens_slots"] == 8
    assert after["affectlens_packs_loaded"] == 1
    state = client.ask(STATE)[1]
    assert state["tokens_steered"] == after[name]
    assert state["requests_steered"] >= after[steered]


def test_the_check_finds_that_it_steers(client: Client) -> None:
    arguments = ["serve", "--check", client.url]
    result = CliRunner().invoke(app, [*arguments, "--spec", STRONG])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ok  ") == 6
    weak = CliRunner().invoke(app, [*arguments, "--spec", "anger=0.000001"])
    assert (weak.exit_code, "changes nothing" in weak.stdout) == (1, True)


@pytest.mark.parametrize("language", ["sh", "python"])
def test_the_documented_requests_work(
    client: Client, folder: Path, tmp_path: Path, language: str
) -> None:
    """As they stand in docs/serving.md, but for the port."""
    shutil.copy(FOLDER / "second.safetensors", folder / "pack_untuned.safetensors")
    text = (Path(__file__).parent.parent / "docs/serving.md").read_text(encoding="utf-8")
    fence = rf'^```{language}(?: test="[^"]*")?\n(.*?)^```$'
    blocks = re.findall(fence, text, re.MULTILINE | re.DOTALL)
    requests = [block for block in blocks if "http://127.0.0.1:8000/" in block]
    assert len(requests) == {"sh": 6, "python": 2}[language]
    for block in requests:
        script = tmp_path / "script"
        script.write_text(block.replace("http://127.0.0.1:8000", client.url))
        run = ["sh", "-e", str(script)] if language == "sh" else [sys.executable, str(script)]
        done = subprocess.run(run, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        told = '"error"' in done.stdout
        assert told == ("angr=1" in block), done.stdout


def test_a_default_for_the_whole_server(client: Client, guarded: Client) -> None:
    steered, plain = client.complete(STRONG), client.complete()
    assert guarded.complete() == steered
    assert guarded.complete(STRONG) == steered
    assert guarded.complete("none") == plain
    assert guarded.complete(use_beam_search=True, n=1) == steered
    assert chat_text(guarded, None) == chat_text(client, STRONG)


def test_without_a_folder_packs_stay_as_they_are(guarded: Client) -> None:
    given = {"name": "second", "path": "second.safetensors"}
    for method, path, body in (("POST", PACKS, given), ("DELETE", f"{PACKS}/tiny", None)):
        status, told = guarded.ask(path, body, method)
        assert (status, "pack_folder" in sentence(told)) == (403, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PACKS), ("POST", PACKS), ("DELETE", f"{PACKS}/tiny"), ("GET", STATE)],
)
def test_the_key_guards_these_routes_too(guarded: Client, method: str, path: str) -> None:
    stranger = Client(guarded.url)
    for key in ("wrong", "a", None):
        status, body = stranger.ask(path, {} if method == "POST" else None, method, key)
        assert (status, "API key" in sentence(body)) == (401, True)


def test_the_check_gives_the_key(guarded: Client) -> None:
    arguments = ["serve", "--check", guarded.url, "--spec", "fear=6"]
    result = CliRunner().invoke(app, [*arguments, "--api-key", KEY])
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, arguments).exit_code == 1


def test_a_pack_of_another_model_starts_no_server(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"width 96; .*tiny has"),
        started(tmp_path / "log", [pack("wide")]),
    ):
        pass
