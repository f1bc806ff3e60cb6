"""Requests that cannot be served: a sentence, and nobody else notices."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests_vllm.cases import Case
from tests_vllm.engines import ask, of_case, request, start, state
from tests_vllm.test_parity import require_equal

PROMPT = [5, 6, 7, 8]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown emotion": ({"affectlens": "angr=1"}, "Unknown emotion 'angr'.*anger"),
    "NaN": ({"affectlens": "anger=nan"}, "between -20 and 20.*nan"),
    "infinity": ({"affectlens": {"anger": math.inf}}, "between -20 and 20.*inf"),
    "huge": ({"affectlens": "anger=1e9"}, "between -20 and 20"),
    "no number": ({"affectlens": "anger=much"}, "must be a number, not 'much'"),
    "no pair": ({"affectlens": "anger"}, "Cannot read 'anger'"),
    "broken JSON": ({"affectlens": '{"anger": '}, "cannot be read as JSON"),
    "a list": ({"affectlens": ["anger", 1]}, "A steering spec is a text"),
    "a truth": ({"affectlens": {"anger": True}}, "must be a number, not True"),
    "nested": ({"affectlens": {"anger": [1]}}, "must be a number"),
    "unknown mode": ({"affectlens": "anger=1;mode=magic"}, "Unknown mode 'magic'"),
    "unknown option": ({"affectlens": "anger=1;position=all"}, "Unknown steering option"),
    "unknown positions": ({"affectlens": "anger=1;positions=last"}, "Unknown positions 'last'"),
    "unknown operator": ({"affectlens": "anger=1;operator=mul"}, "Unknown operator 'mul'"),
    "broken gate": ({"affectlens": "anger=1;gate=anger"}, "Cannot read the gate 'anger'"),
    "unknown gate": ({"affectlens": "anger=1;gate=joi>0.5"}, "Unknown gate emotion 'joi'"),
    "gate beyond one": ({"affectlens": "anger=1;gate=anger>1.5"}, "Cannot read the gate"),
    "unknown pack": ({"affectlens": "anger=1", "affectlens_pack": "x"}, "Unknown steering pack"),
    "unknown field": ({"affectlens_spec": "anger=1"}, "Unknown steering option"),
    "reading neither nor": ({"affectlens_read": "perhaps"}, "must be true or false"),
    "our own field": ({"affectlens": "anger=1", "affectlens_prompt": 3}, "Unknown steering option"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(name: str, eager: Any, cases: list[Case]) -> None:
    extra, sentence = BAD[name]
    with pytest.raises(ValueError, match=sentence):
        ask(eager, [of_case(cases[2]), request(PROMPT, extra_args=extra)])
    require_equal(ask(eager, [of_case(cases[2])]), cases[2:3])


def test_nothing_is_left_behind(eager: Any) -> None:
    with pytest.raises(ValueError, match="Unknown emotion"):
        ask(eager, [request(PROMPT, "anger=1"), request(PROMPT, "anxiety=1")])
    assert not eager.llm_engine.has_unfinished_requests()
    (found,) = state(eager)
    assert (found["requests"], found["slots_in_use"]) == (0, 0)


def test_an_engine_without_settings_refuses(own_caches: Any, cases: list[Case]) -> None:
    """Rather than answering as if it had steered; everything else it serves."""
    llm = start()
    for extra in ({"affectlens": "anger=1"}, {"affectlens_read": True}):
        with pytest.raises(ValueError, match="has no steering pack"):
            ask(llm, [request(PROMPT, extra_args=extra)])
    require_equal(ask(llm, [of_case(cases[0])]), cases[:1])
    assert not hasattr(llm, "affectlens")


def test_what_this_server_was_not_started_with(own_caches: Any, cases: list[Case]) -> None:
    """Only adding, no probes: what needs more is refused, and adding is as ever."""
    from tests_vllm.cases import FOLDER

    blind = {"packs": str(FOLDER / "blind.safetensors"), "operators": ["add"]}
    llm = start(settings=blind)
    for extra, sentence in (
        ({"affectlens": "anger=1;operator=clamp"}, "Unknown operator of this server 'clamp'"),
        ({"affectlens": "anger=1;gate=anger>0.5"}, "holds no probes, which a gate needs"),
        ({"affectlens_read": True}, "holds no probes, so nothing can be read"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ask(llm, [request(PROMPT, extra_args=extra)])
    adds = [c for c in cases if "operator" not in str(c.spec) and "gate" not in str(c.spec)]
    require_equal(ask(llm, [of_case(case) for case in adds]), adds)


def test_a_default_for_the_whole_server(own_caches: Any, cases: list[Case]) -> None:
    """Requests that say nothing get it; ``none`` and other specs win over it."""
    from tests_vllm.engines import SETTINGS

    steered = next(case for case in cases if case.name == "circuit fear")
    llm = start(settings={**SETTINGS, "default": steered.spec})
    require_equal(ask(llm, [of_case(steered, spec=None)]), [steered])
    others = [case for case in cases if case.spec is not None]
    require_equal(ask(llm, [of_case(case) for case in others]), others)
