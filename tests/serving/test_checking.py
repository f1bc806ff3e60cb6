"""``serve --check`` against servers that steer, and servers that only seem to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import DataError
from affectlens.serving.checking import Finding, Server, check_server


class Behaviour:
    """A server that does everything right; tests break one thing each."""

    steers = True  # what is asked for changes replies
    checks = True  # wrong specs are refused
    counts = True  # counters move
    routes = True  # the endpoint plug-in is loaded
    leaks = False  # an unsteered request is steered like the one before
    key: str | None = None
    packs = ("demo",)

    def __init__(self) -> None:
        self.steered = self.refused = 0
        self.last = "none"
        self.asked: list[dict[str, Any]] = []

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny"}]}
        if not self.routes:
            return 404, {"detail": "Not Found"}
        if path == "/plugins/affectlens/packs":
            packs = [{"name": name, "emotions": [f"{name}-joy", "fear"]} for name in self.packs]
            return 200, {"packs": packs}
        if path == "/plugins/affectlens/state":
            moved = {"requests_steered": self.steered, "tokens_steered": 24 * self.steered}
            return 200, {**moved, "requests_refused": self.refused}
        return 404, {}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        assert path == "/v1/completions"
        assert body["model"] == "tiny"
        assert body["temperature"] == 0
        self.asked.append(body["vllm_xargs"])
        spec = body["vllm_xargs"]["affectlens"]
        if "no-such" in spec and self.checks:
            self.refused += self.counts
            return 400, {"error": {"message": "Unknown emotion"}}
        if spec != "none":
            self.steered += self.counts
        effective = self.last if spec == "none" and self.leaks else spec
        self.last = spec
        return 200, {"choices": [{"text": f"reply to {effective if self.steers else 'none'}"}]}


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: Any) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def allowed(self) -> bool:
            given = self.headers.get("Authorization")
            if behaviour.key is None or given == f"Bearer {behaviour.key}":
                return True
            self.answer(401, {"error": "Unauthorized"})
            return False

        def do_GET(self) -> None:
            if self.allowed():
                self.answer(*behaviour.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.allowed():
                self.answer(*behaviour.post(self.path, body))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def look(behaviour: Behaviour, **options: Any) -> list[Finding]:
    with serving(behaviour) as url:
        return list(check_server(Server(url, options.pop("api_key", None), timeout=10), **options))


def changed(**fields: Any) -> Behaviour:
    behaviour = Behaviour()
    for name, value in fields.items():
        setattr(behaviour, name, value)
    return behaviour


def test_a_server_that_steers() -> None:
    behaviour = Behaviour()
    findings = look(behaviour)
    assert len(findings) == 6
    assert all(finding.passed for finding in findings)
    specs = [asked["affectlens"] for asked in behaviour.asked]
    assert specs[:3] == ["none", "demo-joy=2", "none"]
    assert "affectlens_pack" not in behaviour.asked[1]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"steers": False}, "changes nothing"),
        ({"checks": False}, "instead of 400"),
        ({"counts": False}, "did not all move"),
        ({"leaks": True}, "differs after a steered one"),
        ({"packs": ()}, "none is loaded"),
    ],
)
def test_one_thing_is_broken(broken: dict[str, Any], words: str) -> None:
    findings = look(changed(**broken))
    failed = [finding.text for finding in findings if finding.passed is False]
    assert failed
    assert words in failed[0]


def test_without_the_routes_the_rest_is_looked_at() -> None:
    findings = look(changed(routes=False))
    assert [finding.passed for finding in findings].count(None) == 1
    assert "VLLM_PLUGINS" in next(f.text for f in findings if f.passed is None)
    assert not any(finding.passed is False for finding in findings)
    worse = look(changed(routes=False, steers=False))
    assert any(finding.passed is False for finding in worse)


def test_chosen_spec_and_pack() -> None:
    behaviour = changed(packs=("demo", "other"))
    look(behaviour, pack="other")
    assert behaviour.asked[1] == {"affectlens": "other-joy=2", "affectlens_pack": "other"}
    behaviour = Behaviour()
    look(behaviour, spec="fear=3;mode=circuit")
    assert behaviour.asked[1] == {"affectlens": "fear=3;mode=circuit"}


def test_a_refused_spec_is_told_in_the_servers_words() -> None:
    findings = look(Behaviour(), spec="no-such=1")
    assert "Unknown emotion" in next(f.text for f in findings if f.passed is False)


def test_keys() -> None:
    with pytest.raises(DataError, match="Unauthorized"):
        look(changed(key="secret"))
    assert all(finding.passed for finding in look(changed(key="secret"), api_key="secret"))


def test_no_proxy_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with serving(Behaviour()) as url:
        assert Server(url).ask("/v1/models").status == 200


def test_addresses() -> None:
    with pytest.raises(DataError, match="http://"):
        Server("localhost:8000")
    with pytest.raises(DataError, match="is it running"):
        list(check_server(Server("http://127.0.0.1:9", timeout=2)))
    with serving(Behaviour()) as url:
        assert all(f.passed for f in check_server(Server(url + "/v1/", timeout=5)))


def test_the_command_says_so_and_its_exit_code_too() -> None:
    with serving(Behaviour()) as url:
        good = CliRunner().invoke(app, ["serve", "--check", url])
        bad = CliRunner().invoke(app, ["serve", "--check", url, "--spec", "no-such=1"])
    assert good.exit_code == 0
    assert good.stdout.splitlines()[-1] == "Steering is active."
    assert bad.exit_code == 1
    assert "FAIL" in bad.stdout
    nobody = CliRunner().invoke(app, ["serve", "--check", "http://127.0.0.1:9"])
    assert nobody.exit_code == 1
    assert nobody.stderr.startswith("Error: No answer from http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pack", "no/such.safetensors"], "There is no steering pack"),
        (["--backend", "vlm"], "choose one of: vllm"),
        (["--run", "no/such"], "There is no steering pack"),
    ],
)
def test_the_command_refuses_in_one_sentence(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
