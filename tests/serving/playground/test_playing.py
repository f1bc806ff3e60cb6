"""``affectlens play``: what options become, ports, browsers, and the whole of it once."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import DataError
from affectlens.models import load_model
from affectlens.serving.playground import playing
from affectlens.serving.playground.playing import PlayRequest, listen
from affectlens.steering.packs import usual_packs
from tests.on_disk import save_model
from tests.serving.playground.playing import full_pack, listening
from tests.serving.playground.test_remote import talks_as_vllm


def test_every_option_reaches_the_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[PlayRequest] = []
    monkeypatch.setattr(playing, "play", lambda request, _say: seen.append(request))

    def asked(*options: str) -> PlayRequest:
        done = CliRunner().invoke(app, ["play", *options])
        assert done.exit_code == 0, done.output
        return seen.pop()

    monkeypatch.chdir(tmp_path)
    usual = usual_packs(None, Path("runs/demo"))  # those that come with the package
    assert asked() == PlayRequest(packs=tuple(usual))
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/pack.safetensors").touch()
    assert asked() == PlayRequest(packs=("runs/demo/pack.safetensors",))
    assert asked("--run", "runs/x").packs == ("runs/x/pack.safetensors",)
    assert asked("--pack", "a", "--pack", "b=c").packs == ("a", "b=c")
    assert asked("--model", "m").model == "m"
    assert asked("--api-key", "k").api_key == "k"
    assert asked("--host", "0.0.0.0").host == "0.0.0.0"
    assert asked("--port", "9").port == 9
    assert asked("--force").force is True
    assert asked("--no-browser").browser is False
    assert asked("--url", "http://x").url == "http://x"
    done = CliRunner().invoke(app, ["play", "--url", "http://x", "--pack", "a"])
    assert done.exit_code == 1 and "leave out --pack" in done.output.replace("\n", " ")


def test_a_port_that_is_taken_is_said_and_passed_by_if_none_was_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"Port {port} of 127.0.0.1 is taken .*--port"):
            listen("127.0.0.1", port)
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
    with pytest.raises(DataError, match="no address of this machine"):
        listen("no.such.host.invalid", None)


def test_no_screen_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert playing.usual_browser() is None
    monkeypatch.setenv("DISPLAY", ":0")
    assert playing.usual_browser() is not None


def test_without_a_pack_or_a_server_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["play", "--run", str(tmp_path), "--no-browser"])
    assert done.exit_code == 1 and "There is no steering pack" in done.output.replace("\n", " ")
    done = CliRunner().invoke(app, ["play", "--url", "http://127.0.0.1:9", "--no-browser"])
    assert done.exit_code == 1 and "does not answer" in done.output.replace("\n", " ")


class Played:
    """The command as a process, up to the line that says where the page is."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "affectlens", "play", "--no-browser", *options]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ,
            # A shell that puts the tests into the background has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.said: list[str] = []
        self.address = ""

    def __enter__(self) -> Played:
        timer = threading.Timer(300, self.process.kill)
        timer.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            found = re.search(r"http://\S+/play", line)
            if found:
                self.address = found[0]
                break
        timer.cancel()
        assert self.address, self.said
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=300)
        self.said.append(rest)


def test_from_the_command_to_the_page_and_its_end(tmp_path: Path) -> None:
    name = save_model(tmp_path / "model")
    model = load_model(name, dtype="float32")
    full_pack(model).save(tmp_path / "pack.safetensors")
    with Played("--pack", str(tmp_path / "pack.safetensors"), "--model", name) as played:
        root = played.address.removesuffix("/play")
        assert "AffectLens" in httpx.get(played.address).text
        about = httpx.get(f"{root}/affectlens/play/about").json()
        assert about["packs"][0]["emotions"][0] == "anger"
    assert "The playground has ended." in played.said[-1]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{root}/health")


def test_before_another_server() -> None:
    with listening(talks_as_vllm()) as url, Played("--url", url) as played:
        root = played.address.removesuffix("/play")
        assert httpx.get(f"{root}/affectlens/play/about").json()["server"] == "vllm"
        assert httpx.get(f"{root}/play/static/app.js").status_code == 200
