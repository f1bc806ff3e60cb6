"""A real vLLM server with a tiny model, asked over HTTP."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affectlens.serving.checking import Server
from affectlens.serving.child_process import HOST, free_port, running
from affectlens.serving.contract import Launch
from affectlens.serving.vllm.launching import prepare
from tests.serving.asking import ask
from tests_vllm.cases import FOLDER
from tests_vllm.engines import BLOCK, ENVIRONMENT

PROMPT = "my train was late today and the dog ran home"
NAME = "tiny"
DOCUMENTED = "smollm2-135m-instruct"
"""What the model is called in the documents; it answers to that too."""


@dataclass(frozen=True)
class Client:
    """Asks a server."""

    url: str
    key: str | None = None

    def ask(
        self, path: str, body: Any = None, method: str | None = None, key: str | None = None
    ) -> tuple[int, Any]:
        """Status, and decoded JSON or text."""
        headers = {"Authorization": f"Bearer {key or self.key}"} if key or self.key else {}
        return ask(self.url + path, body, method, headers, timeout=600)

    def reply(self, path: str, spec: str | None = None, **options: Any) -> tuple[int, Any]:
        """A greedy reply; the spec and what begins with ``affectlens`` goes into vllm_xargs."""
        extra = {n: options.pop(n) for n in list(options) if n.startswith("affectlens_")}
        if spec is not None:
            extra["affectlens"] = spec
        more = {"vllm_xargs": extra} if extra else {}
        return self.ask(path, {"model": NAME, "temperature": 0, **options, **more})

    def complete(self, spec: str | None = None, **options: Any) -> list[str]:
        """Texts of a completion that is answered."""
        given = {"prompt": PROMPT, "max_tokens": 12, **options}
        status, body = self.reply("/v1/completions", spec, **given)
        assert status == 200, body
        return [choice["text"] for choice in body["choices"]]

    def refused(self, spec: str | None = None, **options: Any) -> str:
        """The sentence of a completion that is refused."""
        path = options.pop("path", "/v1/completions")
        given = {"prompt": PROMPT, "max_tokens": 12, **options}
        status, body = self.reply(path, spec, **given)
        assert status == 400, body
        return body["error"]["message"]

    def metrics(self) -> Mapping[str, float]:
        """Ours."""
        lines = self.ask("/metrics")[1].splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("affectlens_")]
        return {name: float(value) for name, value in pairs if "_created" not in name}


def arguments(*more: str) -> list[str]:
    """Of ``vllm serve`` for the tiny model."""
    return [
        *("--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "8"),
        *("--block-size", str(BLOCK), "--num-gpu-blocks-override", "200", "--enforce-eager"),
        *("--served-model-name", NAME, DOCUMENTED, *more),
    ]


def launch_of(port: int, packs: Sequence[str], extra: Sequence[str] = (), **options: Any) -> Launch:
    """How `affectlens serve` would start it."""
    where = ["--host", HOST, "--port", str(port)]
    launch = prepare(
        packs, str(FOLDER / "tiny"), options=options, python=sys.executable,
        extra=[*where, *arguments(*extra)],
    )  # fmt: skip
    # An engine core in a process of its own, as servers have it.
    plain = {n: v for n, v in ENVIRONMENT.items() if n != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    inherited = {n: v for n, v in launch.environment.items() if n not in ENVIRONMENT}
    return replace(launch, environment={**inherited, **plain})


@contextmanager
def started(
    log: Path,
    packs: Sequence[str],
    extra: Sequence[str] = (),
    key: str | None = None,
    **options: Any,
) -> Generator[Client]:
    """A server while the block runs."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    more = ["--api-key", key] if key else []
    launch = launch_of(port, packs, [*extra, *more], **options)
    with running(launch, Server(url, key), log, patience=300):
        yield Client(url, key)


def pack(name: str) -> str:
    """File of a pack."""
    return os.fspath(FOLDER / f"{name}.safetensors")
