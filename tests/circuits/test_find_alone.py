"""Circuits from a model and texts alone: those of directions made by hand, and what they saw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import affectlens as al
from affectlens.circuits import Circuit, find_circuit
from affectlens.circuits.ranking import Search, find_by
from affectlens.circuits.texts_seen import seen, with_texts
from affectlens.core.errors import DataError
from tests.circuits.helpers import WORDS
from tests.circuits.test_carry_over import EMOTIONS, corpus

ASKED: Any = {"split": None, "words": WORDS, "prompts": [[5, 9, 7]], "score": "contrast"}


@pytest.fixture(scope="module")
def found(tiny_model: Any) -> Circuit:
    return find_circuit(tiny_model("llama"), corpus(4), **ASKED)


def test_it_is_the_circuit_of_directions_from_stored_rows(found: Circuit, tiny_model: Any) -> None:
    model = tiny_model("llama")
    rows = al.capture(model, corpus(4), sites="resid_mid,resid_post", positions="mean:reply")
    by_hand = find_circuit(model, corpus(4), al.directions(rows, emotions=EMOTIONS), **ASKED)
    assert found.emotions == by_hand.emotions == EMOTIONS
    torch.testing.assert_close(found.neuron_scores, by_hand.neuron_scores, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.head_scores, by_hand.head_scores, rtol=1e-3, atol=1e-5)
    for emotion in EMOTIONS:
        for kind in ("neurons", "heads"):
            mine, theirs = (
                [unit[:2] for unit in one.units(emotion, kind)] for one in (found, by_hand)
            )
            assert mine == theirs and mine


def test_strategies_that_read_no_task_need_none(found: Circuit, tiny_model: Any) -> None:
    search = Search(tiny_model("llama"), found, neurons=7, heads=2)
    assert len(find_by("direct", search).units("fear", "neurons")) == 7
    assert len(find_by("published", search).units("fear", "heads")) == 2
    for name in ("attribution_patching", "total_effect", "consensus", "greedy", "learned_mask"):
        with pytest.raises(DataError, match="ranks units by a task"):
            find_by(name, search)


def test_a_circuit_knows_which_scenarios_it_was_chosen_on(found: Circuit, tmp_path: Any) -> None:
    found.save(tmp_path / "c.safetensors")
    back = Circuit.load(tmp_path / "c.safetensors")
    assert seen(back, corpus(6)) == ["s0", "s1", "s2", "s3"]
    other = replace(corpus(6), name="others")
    assert seen(back, other) == []
    more = with_texts(back, other)
    assert len(seen(more, other)) == 6 and len(seen(more, corpus(6))) == 4
    assert seen(more.with_delta(more.delta_neurons, how="same"), other)
