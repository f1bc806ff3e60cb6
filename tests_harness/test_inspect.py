"""Inspect AI asks a steered server: the task's replies are those of the same plain requests."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from affectlens.core import DataError
from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port
from tests_harness.environment import BIN, MODEL, PACK, run

STEERED = {"steering": "anger=1", "repetition_penalty": 1.1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "affectlens", "serve", "--backend", "transformers"]
    command += ["--pack", PACK, "--host", HOST, "--port", str(port), "--", "--dtype", "float32"]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield awaited(Server(f"http://{HOST}:{port}"), process, log)
        finally:
            process.terminate()
            process.wait(30)


def awaited(server: Server, process: subprocess.Popen[bytes], log: Path) -> Server:
    for _ in range(180):
        assert process.poll() is None, log.read_text()
        try:
            if server.ask("/health").status == 200:
                return server
        except DataError:
            pass
        time.sleep(1)
    raise AssertionError(log.read_text())


def test_inspect_hears_what_the_server_says_when_steered(server: Server, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("feeling_task.py"), tmp_path)  # it takes no full path
    key = {"AFFECTLENS_API_KEY": "none"}
    command = [
        BIN / "inspect",
        "eval",
        "feeling_task.py",
        "--model",
        f"openai-api/affectlens/{MODEL}",
    ]
    command += ["--model-base-url", f"{server.url}/v1", "--extra-body", json.dumps(STEERED)]
    command += ["--temperature", "0", "--max-tokens", "24", "--display", "none"]
    command += ["--log-dir", tmp_path / "logs", "--log-format", "json"]
    run(command, tmp_path, **key)
    (log,) = (tmp_path / "logs").glob("*.json")
    told = json.loads(log.read_text())
    assert told["status"] == "success" and len(told["samples"]) == 3
    plain = 0
    for sample in told["samples"]:
        messages = [{"role": "user", "content": sample["input"]}]
        body = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 24}
        reply = server.ask("/v1/chat/completions", {**body, **STEERED}).body
        text = reply["choices"][0]["message"]["content"]
        assert sample["output"]["choices"][0]["message"]["content"] == text
        other = server.ask("/v1/chat/completions", {**body, "repetition_penalty": 1.1}).body
        plain += other["choices"][0]["message"]["content"] == text
    assert plain == 0
