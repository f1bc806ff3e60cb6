"""Whatever fits, or does not fit, the server's own description: never a 500, always a sentence."""

from __future__ import annotations

import os
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.serving.local.conftest import Client

CASES = int(os.environ.get("AFFECTLENS_FUZZ", "25"))
"""Of each route."""


def test_no_input_is_answered_with_a_500(client: Client) -> None:
    """Every route; `benchmarks/README.md` has the command for thousands of cases."""
    schema: Any = schemathesis.openapi.from_url(f"{client.url}/openapi.json")
    statuses: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses[f"{operation.method.upper()} {operation.path}"] = answers(operation)
    assert len(statuses) >= 9
    for route in ("POST /v1/chat/completions", "POST /v1/completions"):
        assert 400 in statuses[route]


def answers(operation: Any) -> set[int]:
    """Statuses that a route gives."""
    seen: set[int] = set()
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @given(case=st.one_of(*modes))
    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        if isinstance(case.body, dict):  # nearly all names are those of no model
            case.body.pop("model", None)
        response = case.call(timeout=60)
        seen.add(response.status_code)
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    check()
    return seen
