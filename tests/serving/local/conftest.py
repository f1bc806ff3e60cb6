"""A local server with a tiny model, in a thread of this process, asked over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.models import LanguageModel
from affectlens.serving.child_process import HOST, free_port
from affectlens.serving.contract import KEY
from affectlens.serving.door import Door
from affectlens.serving.local.engine import Engine
from affectlens.serving.local.guards import GuardSettings
from affectlens.serving.local.limits import EngineLimits
from affectlens.serving.local.service import HttpSettings, Service
from affectlens.serving.settings import Settings
from affectlens.steering import SteeringPack
from affectlens.steering.gates import EMBEDDINGS, Readout
from tests.serving.asking import ask
from tests.steering.oracle import random_pack

CLASSES = ("anger", "fear", "happiness", "neutral")
NAME = "tiny"


def reading_pack(model: LanguageModel, seed: int = 0, size: float = 0.4) -> SteeringPack:
    """`random_pack` with probes to read by and probes that decide gates."""
    pack = random_pack(model, seed, size)
    generator = torch.Generator().manual_seed(seed + 100)

    def probes(*layers: int) -> Readout:
        weights = torch.randn(len(layers), len(CLASSES), model.d_model, generator=generator) * 0.3
        return Readout(CLASSES, layers, weights, torch.zeros(len(layers), len(CLASSES)))

    return replace(pack, readout=probes(1, 2), gates=probes(EMBEDDINGS, 0))


@dataclass(frozen=True)
class Client:
    """Asks a server in the plainest way."""

    url: str
    service: Service | None = None

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status, and decoded JSON or text."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.url + path, body, method, named, timeout=120)

    def idle(self, seconds: float = 20) -> bool:
        """Whether all replies come to an end."""
        assert self.service is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.service.engine.state()
            if not state["running"] and not state["waiting"]:
                return True
            time.sleep(0.01)
        return False


@contextmanager
def serving(service: Service) -> Generator[Client]:
    """Serve while the block runs."""
    import uvicorn

    from affectlens.serving.local.app import build_app

    port = free_port()
    config = uvicorn.Config(build_app(service), host=HOST, port=port, log_level="warning")
    server = uvicorn.Server(config)
    with service.engine:
        thread = threading.Thread(target=server.run)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            yield Client(f"http://{HOST}:{port}", service)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


MakeService = Callable[..., Service]


@pytest.fixture(scope="module")
def make_service(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> MakeService:
    """``make_service(family, limits=…, guards=…, **settings)``."""
    folder = tmp_path_factory.mktemp("packs")

    def make(
        family: str = "llama",
        limits: EngineLimits | None = None,
        guards: GuardSettings | None = None,
        **settings: Any,
    ) -> Service:
        model = tiny_model(family)
        files = {}
        for name, seed in (("tiny", 0), ("second", 1)):
            file = folder / f"{family}-{name}.safetensors"
            reading_pack(model, seed).save(file)
            files[name] = str(file)
        given = {"packs": {"tiny": files["tiny"]}, "pack_folder": str(folder), **settings}
        checked = Settings.of({KEY: given})
        assert checked is not None
        http = HttpSettings(NAME, guards or GuardSettings())
        return Service(Engine(model, limits or EngineLimits()), Door(checked), http)

    return make


@pytest.fixture(scope="module")
def client(make_service: MakeService) -> Iterator[Client]:
    """A server that takes much."""
    limits = EngineLimits(rows=6, waiting=40, replies=8, reply=64, length=200)
    with serving(make_service(limits=limits, max_packs=3)) as found:
        yield found
        assert found.idle()


@pytest.fixture(scope="module")
def pack_folder(client: Client) -> Path:
    """From which packs may be loaded."""
    assert client.service is not None
    return Path(str(client.service.door.settings.pack_folder))
