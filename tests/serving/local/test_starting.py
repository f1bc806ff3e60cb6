"""`affectlens serve --backend transformers`: the command, and the process that it becomes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from affectlens.cli import app
from affectlens.core import ArtefactError, DataError, ModelError, UnknownNameError, extras
from affectlens.models.loading import load_model
from affectlens.serving import servers
from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port, running
from affectlens.serving.contract import KEY
from affectlens.serving.door import Door
from affectlens.serving.local.running import in_a_thread_that_ends, template_variables_of
from affectlens.serving.local.server import API_KEY, prepare
from affectlens.serving.settings import Settings
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.serving.local.conftest import reading_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and a pack of it on disk."""
    found = tmp_path_factory.mktemp("model")
    tiny_hf("llama").save_pretrained(found / "tiny")
    tiny_tokenizer().save_pretrained(found / "tiny")
    reading_pack(load_model(str(found / "tiny"))).save(found / "mine.safetensors")
    reading_pack(load_model(tiny_hf("llama", 5), tokenizer=tiny_tokenizer())).save(
        found / "other.safetensors"
    )
    return found


def test_it_is_the_usual_server_where_vllm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda _: None)
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    assert servers.usual_server() == "transformers"
    assert servers.usual_server("/somewhere/python") == "vllm"
    monkeypatch.setattr(servers, "find_spec", lambda name: name)
    assert servers.usual_server() == "vllm"


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *given: became.append(given))
    file = folder / "mine.safetensors"
    arguments = ["--backend", "transformers", "--pack", str(file), "--default", "anger=0.5"]
    more = ["--api-key", "secret", "--port", "81", "--", "--max-rows", "3"]
    done = CliRunner().invoke(app, ["serve", *arguments, *more])
    assert done.exit_code == 0, done.output
    ((_, command, environment),) = became
    assert command[:5] == (sys.executable, "-m", "affectlens.serving.local", "--model", "tiny")
    settings = json.loads(command[command.index("--steering") + 1])
    assert settings == {"packs": {"mine": str(file)}, "default": "anger=0.5", "max_packs": 8}
    assert command[-6:] == ("--host", "127.0.0.1", "--port", "81", "--max-rows", "3")
    assert environment[API_KEY] == "secret" and "secret" not in done.output


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"packs": ["nowhere.safetensors"]}, ArtefactError, "There is no steering pack"),
        ({"options": {"default": "angr=1"}}, UnknownNameError, "Unknown emotion"),
        ({"options": {"max_packs": 0}}, DataError, "max_packs"),
    ],
)
def test_what_cannot_be_served_is_said_before_the_start(
    folder: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    given = {"packs": [str(folder / "mine.safetensors")], **options}
    with pytest.raises(error, match=words):
        prepare(**given)


def test_what_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(ModelError, match=r"needs uvicorn: pip install 'affectlens\[serve\]'"):
        prepare([str(folder / "mine.safetensors")])


def test_a_process_serves_and_ends_in_order(folder: Path, tmp_path: Path) -> None:
    port = free_port()
    launch = prepare(
        [str(folder / "mine.safetensors")], str(folder / "tiny"),
        options={"api_key": "secret"},
        extra=["--port", str(port), "--served-model-name", "me", "--max-reply", "20"],
    )  # fmt: skip
    log = tmp_path / "log"
    with running(launch, Server(f"http://{HOST}:{port}", "secret"), log, patience=120) as found:
        assert found.ask("/v1/models").body["data"][0]["id"] == "me"
        body = {"messages": [{"role": "user", "content": "hello"}], "steering": "anger=1"}
        assert found.ask("/v1/chat/completions", body).status == 200
        assert Server(found.url).ask("/v1/models").status == 401
    assert "Traceback" not in log.read_text()
    assert f"http://{HOST}:{port}" in log.read_text()


def test_who_loads_the_model_leaves_no_workers_behind() -> None:
    loading = in_a_thread_that_ends(threading.current_thread)
    assert loading is not threading.main_thread() and not loading.is_alive()
    with pytest.raises(ModelError, match="what the job says"):
        in_a_thread_that_ends(lambda: (_ for _ in ()).throw(ModelError("what the job says")))


@pytest.mark.parametrize(
    ("pack", "extra", "words"),
    [
        ("other", [], "was made for model"),
        ("mine", ["--max-rows", "0"], "rows must be a whole number from 1"),
    ],
)
def test_a_process_that_cannot_start_says_why(
    folder: Path, tmp_path: Path, pack: str, extra: list[str], words: str
) -> None:
    launch = prepare(
        [str(folder / f"{pack}.safetensors")],
        str(folder / "tiny"),
        extra=["--port", str(free_port()), *extra],
    )
    with (
        pytest.raises(ModelError, match=words),
        running(launch, Server(f"http://{HOST}:1"), tmp_path / "log", patience=120),
    ):
        pass


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        launch = prepare(
            [str(folder / "mine.safetensors")], "no-such-model", extra=["--port", str(port)]
        )
        done = subprocess.run(launch.command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_meanwhile_is_said_in_a_sentence(folder: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, 0))
        port = other.getsockname()[1]
        launch = prepare(
            [str(folder / "mine.safetensors")], str(folder / "tiny"), extra=["--port", str(port)]
        )
        process = started(launch)
        other.listen()  # the server has bound it, or finds it taken at once
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in told
    assert str(port) in told.splitlines()[-1] and "choose another" in told.lower()


@pytest.mark.parametrize("ready", [False, True])
def test_ctrl_c_ends_it_at_once_and_without_a_traceback(ready: bool, folder: Path) -> None:
    port = free_port()
    launch = prepare(
        [str(folder / "mine.safetensors")], str(folder / "tiny"), extra=["--port", str(port)]
    )
    process = started(launch)
    assert process.stderr is not None
    if ready:
        for line in process.stderr:
            if "Serving" in line:
                break
    else:
        time.sleep(2.5)  # among its imports, or loading
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told.endswith("Stopped.\n")
    assert "Traceback" not in told


def started(launch: Any) -> subprocess.Popen[str]:
    """As from a terminal: what runs in the background passes on that it ignores Ctrl-C."""
    return subprocess.Popen(
        launch.command,
        env=launch.environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_template_is_told_what_it_was_told_when_the_packs_were_made(
    tiny_model: Any, tmp_path: Path
) -> None:
    plain, files = reading_pack(tiny_model("llama")), {}
    for name, told in (("a", {"effort": "high"}), ("b", {"effort": "high"}), ("c", {})):
        made_by = replace(plain.provenance, parameters={"template_variables": told} if told else {})
        files[name] = str(tmp_path / f"{name}.safetensors")
        replace(plain, provenance=made_by).save(files[name])

    def told(*names: str) -> Mapping[str, Any]:
        settings = Settings.of({KEY: {"packs": {name: files[name] for name in names}}})
        assert settings is not None
        return template_variables_of(Door(settings))

    assert told("a", "b") == {"effort": "high"} and told("c") == {}
    with pytest.raises(DataError, match="Packs a and c were made with different template var"):
        told("a", "c")
