"""A tiny model behind the local server, and a real browser before it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from affectlens.core import Provenance
from affectlens.serving.door import Door
from affectlens.serving.local.app import build_app
from affectlens.serving.local.engine import Engine
from affectlens.serving.local.service import HttpSettings, Service
from affectlens.serving.settings import Settings
from affectlens.steering import SteeringPack
from affectlens.steering.gates import EMBEDDINGS, Readout

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
CLASSES = (*EMOTIONS, "neutral")


def full_pack(model: Any, size: float = 0.4) -> SteeringPack:
    """Six emotions, two modes, probes to read by and probes that decide gates."""
    generator = torch.Generator().manual_seed(3)
    layers = {
        "circuit.o_proj_out": (1, 2),
        "circuit.down_proj_out": (0, 1, 2),
        "residual.resid_post": (1, 2),
    }

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    readout = Readout(CLASSES, (2,), randn(1, 7, model.d_model) * 0.2, randn(1, 7) * 0.1)
    gates = Readout(CLASSES, (EMBEDDINGS, 1), randn(2, 7, model.d_model) * 0.2, randn(2, 7) * 0.1)
    return SteeringPack(
        emotions=EMOTIONS,
        vectors={
            name: randn(len(EMOTIONS), len(n), model.d_model) * size for name, n in layers.items()
        },
        layers=layers,
        n_layers=model.n_layers,
        d_model=model.d_model,
        recommended={mode: dict.fromkeys(EMOTIONS, 1.0) for mode in ("circuit", "residual")},
        positions={"circuit": "last_prompt+generated", "residual": "last_prompt+generated"},
        readout=readout,
        gates=gates,
        provenance=Provenance("pack", model=model.fingerprint, model_name="tiny"),
    )


@contextmanager
def service_of(model: Any, folder: Path, **packs: SteeringPack) -> Iterator[Service]:
    """A service with packs from files."""
    files: dict[str, str] = {}
    for name, pack in (packs or {"demo": full_pack(model)}).items():
        pack.save(folder / f"{name}.safetensors")
        files[name] = str(folder / f"{name}.safetensors")
    with Engine(model) as engine:
        yield Service(engine, Door(Settings(packs=files, max_packs=8)), HttpSettings("tiny"))


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """An app at an address of this machine."""
    import uvicorn

    from affectlens.serving.playground.playing import listen

    with listen("127.0.0.1", None) as made:
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [made]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{made.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@contextmanager
def served(model: Any, folder: Path, **packs: SteeringPack) -> Iterator[str]:
    """The local server with the playground, at an address."""
    with service_of(model, folder, **packs) as service, listening(build_app(service)) as url:
        yield url


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def without_readings(pack: SteeringPack) -> SteeringPack:
    """A pack that steers and nothing else."""
    only = {name: v for name, v in pack.vectors.items() if name.startswith("circuit")}
    return replace(
        pack,
        vectors=only,
        layers={name: pack.layers[name] for name in only},
        recommended={"circuit": pack.recommended["circuit"]},
        positions={"circuit": pack.positions["circuit"]},
        readout=None,
        gates=None,
    )
