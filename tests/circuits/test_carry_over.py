"""Carry-over against one plain pass per pair of sentences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits.interventions import Intervention, intervening, zero
from affectlens.circuits.tasks import CarryOver, margins
from affectlens.core.errors import DataError
from affectlens.core.places import WritePoint
from affectlens.datasets.schema import Corpus, Message, Record

EMOTIONS = ("anger", "fear", "happiness")
FIRST = ("They did it again!", "Is it dark in there?", "What a day.")
REST = ("I will not stand for it.", "Nobody came back. Not one.", "I am so happy about it.")


def corpus(groups: int = 3) -> Corpus:
    records = [
        Record(
            id=f"{g}:{emotion}",
            messages=(
                Message("user", f"The train was late {g} times."),
                Message("assistant", f"{FIRST[e]} {REST[(e + g) % 3]}"),
            ),
            emotion=emotion,
            valence="negative",
            group=f"s{g}",
            theme="t",
            split="test",
        )
        for g in range(groups)
        for e, emotion in enumerate(EMOTIONS)
    ]
    return Corpus("small", "replies", tuple(records))


def plain_score(model: Any, user: str, first: str, rest: str) -> float:
    """Mean log-probability of a second sentence, by one pass of the Hugging Face model."""
    before = f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{first}"
    whole = model.tokenizer(f"{before} {rest}", add_special_tokens=False).input_ids
    start = len(model.tokenizer(before, add_special_tokens=False).input_ids)
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([whole])).logits[0].double()
    told = logits.log_softmax(-1)[torch.arange(start - 1, len(whole) - 1), whole[start:]]
    return float(told.mean())


def test_scores_are_those_of_single_passes(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS, named=True)
    found = task.scores(model)
    for g in range(3):
        for c in range(3):
            for t in range(3):
                wanted = plain_score(
                    model, f"The train was late {g} times.", FIRST[c], REST[(t + g) % 3]
                )
                assert found[g, c, t] == pytest.approx(wanted, abs=1e-5)
    part = task.scores(model, ["fear"])
    np.testing.assert_allclose(part[:, 1], found[:, 1], atol=1e-6)
    assert np.isnan(part[:, [0, 2]]).all()
    with intervening(model, [Intervention(WritePoint(0, "down_proj_out"), zero())]):
        assert np.abs(task.scores(model) - found).max() > 1e-3


def test_continuations_that_name_a_feeling_are_left_out(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS)
    missing = np.isnan(task.scores(model)).all(axis=1)
    assert [list(row) for row in missing] == [
        [(e + g) % 3 == 2 for e in range(3)] for g in range(3)
    ]
    found = margins(task.scores(model))
    assert [list(row) for row in np.isnan(found)] == [list(row) for row in missing]


class TestMargins:
    """Algebra of the centring."""

    scores = np.random.default_rng(0).normal(size=(4, 3, 3))

    def test_a_context_that_tells_nothing_has_none(self) -> None:
        same = np.repeat(self.scores[:, :1], 3, axis=1)
        np.testing.assert_allclose(margins(same), 0, atol=1e-12)

    def test_how_likely_a_continuation_is_at_all_plays_no_part(self) -> None:
        shifted = self.scores + np.random.default_rng(1).normal(size=(4, 1, 3))
        np.testing.assert_allclose(margins(shifted), margins(self.scores), atol=1e-12)

    def test_brute_force(self) -> None:
        for g in range(4):
            s = self.scores[g]
            for e in range(3):
                lift = [s[e, t] - (s[0, t] + s[1, t] + s[2, t]) / 3 for t in range(3)]
                others = [lift[t] for t in range(3) if t != e]
                assert margins(self.scores)[g, e] == pytest.approx(lift[e] - sum(others) / 2)

    def test_one_context_alone_is_centred_by_the_others_as_they_were(self) -> None:
        part = np.full_like(self.scores, np.nan)
        part[:, 2] = self.scores[:, 2]
        found = margins(part, self.scores)
        np.testing.assert_allclose(found[:, 2], margins(self.scores)[:, 2])
        assert np.isnan(found[:, :2]).all()


def test_too_few_groups_are_refused(tiny_model: Any) -> None:
    with pytest.raises(DataError, match="two groups or more"):
        CarryOver.of(tiny_model("llama"), corpus(1), EMOTIONS)
    with pytest.raises(DataError, match="this corpus has 0"):
        CarryOver.of(tiny_model("llama"), corpus(), (*EMOTIONS, "disgust"))
