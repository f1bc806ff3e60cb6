"""The cases that every server passes, on vLLM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.http_cases import *  # noqa: F403
from tests_vllm.serving import NAME, pack, started


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "log"
    with started(log, [pack("tiny")]) as found:
        yield found.url


@pytest.fixture
def model_name() -> str:
    return NAME


@pytest.fixture
def spec() -> str:
    return "anger=6;mode=circuit"
