"""Whatever fits, or does not fit, the server's own description: never a 500, always a sentence."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.serving.local.conftest import Client

logger = logging.getLogger(__name__)
CASES = int(os.environ.get("AFFECTLENS_FUZZ", "25"))
"""Of each route that takes anything; with 340 they are about 2,000 in all."""

_HELLO = {"role": "user", "content": "Hello there"}
SOUND: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {"messages": [_HELLO], "max_tokens": 3},
    "POST /v1/completions": {"prompt": "Hello there", "max_tokens": 3},
    "POST /affectlens/play/inspect": {"messages": [_HELLO], "reply": "I am"},
    "POST /affectlens/play/token": {"messages": [_HELLO], "reply": "I am", "at": 0},
}
"""Bodies that are served. What the description allows is mostly refused by a rule that it cannot
say, so half of the cases are these, with a few of the generated fields."""

PIECES = (
    "anger fear none = 1 -0.5 1e309 nan , ; ;; mode= circuit residual gate= anger>0.3 fear< "
    'anger=1 positions= all prompt unit= natural operator= project_out schedule= { " \ud800'
)
SPECS = st.lists(st.sampled_from(PIECES.split()), max_size=9).map("".join)
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "system", "assistant", "tool", "text", ""]),
            "content": st.one_of(st.text(max_size=8), st.none(), st.just([{"type": "text"}])),
        }
    ),
    max_size=4,
)
OURS: dict[str, st.SearchStrategy[Any]] = {"steering": SPECS, "messages": TURNS}


def test_no_input_is_answered_with_a_500(client: Client) -> None:
    schema: Any = schemathesis.openapi.from_url(f"{client.url}/openapi.json")
    statuses: dict[str, Counter[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses[f"{operation.method.upper()} {operation.path}"] = answers(operation)
    assert len(statuses) >= 9
    both = [(one[200], one.total() - one[200]) for route, one in statuses.items() if route in SOUND]
    if CASES < 100:  # too few to see everything on every route
        both = [tuple(map(sum, zip(*both, strict=True)))]
    assert all(served and refused for served, refused in both), statuses
    logger.info("%d cases: %s", sum(one.total() for one in statuses.values()), statuses)


def answers(operation: Any) -> Counter[int]:
    """How often a route gives which status."""
    seen = Counter[int]()
    sound = SOUND.get(f"{operation.method.upper()} {operation.path}")
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @given(case=st.one_of(*modes), data=st.data())
    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
    def check(case: Any, data: st.DataObject) -> None:
        if sound is not None and data.draw(st.booleans()):
            case.body = mended(case.body, sound, data)
            case.media_type = "application/json"
        if isinstance(case.body, dict):  # nearly all names are those of no model
            case.body.pop("model", None)
        response = case.call(timeout=60)
        seen[response.status_code] += 1
        assert response.status_code < 500, response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    check()
    return seen


def mended(body: Any, sound: dict[str, Any], data: st.DataObject) -> dict[str, Any]:
    """A body that is served, with a few fields of another and of our own making."""
    made = dict(sound)
    if isinstance(body, dict) and body:
        for name in data.draw(st.sets(st.sampled_from(sorted(map(str, body))), max_size=2)):
            made[name] = body.get(name)
    for name in data.draw(st.sets(st.sampled_from(sorted(OURS)), max_size=2)):
        made[name] = data.draw(OURS[name])
    return made
