"""Engines and expectations that tests share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests_vllm.cases import FOLDER, Case
from tests_vllm.engines import ENVIRONMENT, SETTINGS, start

os.environ |= ENVIRONMENT
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing that was compiled before is used."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CACHE_ROOT", str(folder / "vllm"))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        yield folder


def _cases(name: str) -> list[Case]:
    path = FOLDER / f"{name}.cases.json"
    if not path.exists():
        pytest.fail(f"There is no {path}; run make test-vllm, or tests_vllm.reference first.")
    return [Case.of(one) for one in json.loads(path.read_text())]


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    """What the tiny model answers in Transformers."""
    return _cases("tiny")


@pytest.fixture(scope="session")
def mapped_cases() -> list[Case]:
    """What it answers with a pack of low-rank maps."""
    return _cases("mapped")


@pytest.fixture(scope="session")
def real_cases() -> list[Case]:
    """What the default model answers."""
    return _cases("real")


@pytest.fixture(scope="session")
def real_folder() -> str:
    """Of the default model."""
    return json.loads((FOLDER / "real.json").read_text())["folder"]


@pytest.fixture(scope="session")
def eager(own_caches: Path) -> Any:
    """The tiny model with the plug-in, not compiled; steps are shorter than long prompts."""
    return start(settings=SETTINGS)
