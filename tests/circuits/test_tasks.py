"""What every task does: margins from rows, in part or whole, and through any test of a circuit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.patching import attribution_patching
from affectlens.circuits.evidence import AblationSettings, ablate
from affectlens.circuits.tasks import CarryOver, Text, TextTask, margins
from affectlens.core.errors import DataError
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


@dataclass(frozen=True, eq=False)
class OneToken(TextTask):
    """The least a task can be: one token after one context per emotion, no centre."""

    emotions: tuple[str, ...]
    scenarios: tuple[str, ...]
    name = "one_token"

    @property
    def fingerprint(self) -> str:
        return "one token"

    def first(self, items: int) -> OneToken:
        return OneToken(self.emotions, self.scenarios[:items])

    def weighted(self, item: int, emotion: int) -> Text:
        return ((2.0, ((5, 6 + emotion), (7 + item,))),) if (item, emotion) != (0, 1) else ()

    def constants(self, item: int, emotion: int) -> Text:
        return ((0.0, ((5,), (7,))),) if (item, emotion) != (0, 1) else ()


@pytest.mark.parametrize("named", [True, False])
def test_margins_are_the_weighted_sums_of_scores(tiny_model: Any, named: bool) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(4), EMOTIONS, named=named)
    scores = task.scores(model)
    np.testing.assert_allclose(task.margins(model), margins(scores), atol=1e-6)
    centre = task.centre(model) * 0 + np.arange(4)[:, None]
    raw = task.margins(model) + task.centre(model)
    part = task.margins(model, ["fear"], centre)
    np.testing.assert_allclose(part[:, 1], (raw - centre)[:, 1], atol=1e-6)
    assert np.isnan(part[:, [0, 2]]).all()
    assert len(task.first(2)) == 2 and task.first(2).scenarios == task.scenarios[:2]
    assert task.first(2).fingerprint != task.fingerprint


def test_the_differentiable_margin_is_the_margin(tiny_model: Any) -> None:
    model = tiny_model("gpt2")
    task = CarryOver.of(model, corpus(), EMOTIONS)
    raw = task.margins(model) + task.centre(model)
    texts = task.texts("happiness")
    assert len(texts) == len(task)
    assert [not rows for rows in texts] == list(np.isnan(raw[:, 2]))
    for item, rows in enumerate(texts):
        if rows:
            with torch.enable_grad():
                value = task.objective(model, "happiness", rows)
            assert value.item() == pytest.approx(raw[item, 2], abs=1e-5)


def test_a_task_of_ones_own_tests_and_ranks_a_circuit(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = OneToken(EMOTIONS, ("a", "b", "c", "d"))
    clean = model.hf(input_ids=torch.tensor([[5, 6], [5, 7], [5, 8]])).logits[:, -1].double()
    told = clean.log_softmax(-1)[:, 7:11].T
    wanted = 2 * told.detach().numpy()
    wanted[0, 1] = np.nan
    np.testing.assert_allclose(task.margins(model), wanted, atol=1e-5)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    settings = AblationSettings(counts=(4,), draws=2)
    curve = ablate(model, task, random_circuit(model), means, settings)
    assert np.isnan(curve.changes[:, :, 0, 1]).all() and curve.provenance.parameters["task"]
    assert len(curve.effects()) == 3
    by_neuron, _ = attribution_patching(model, task, means, ["fear"])
    assert float(by_neuron.abs().max()) > 0


def test_an_emotion_without_texts_is_refused(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS)
    for ask in (task.texts, lambda e: task.margins(model, [e])):
        with pytest.raises(DataError, match="no texts for disgust; it has anger, fear"):
            ask("disgust")
    only = CarryOver.of(model, corpus(2), EMOTIONS).first(1)
    missing = only.emotions[int(np.isnan(only.margins(model)[0]).argmax())]
    with pytest.raises(DataError, match=f"has a margin for {missing}; give more texts, or keep"):
        only.texts(missing)
