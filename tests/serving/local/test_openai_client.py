"""The cases that every server passes, on the local one."""

from __future__ import annotations

import pytest

from tests.serving.http_cases import *  # noqa: F403
from tests.serving.local.conftest import NAME, Client


@pytest.fixture
def url(client: Client) -> str:
    return client.url


@pytest.fixture
def model_name() -> str:
    return NAME


@pytest.fixture
def spec() -> str:
    return "anger=2;mode=circuit"
