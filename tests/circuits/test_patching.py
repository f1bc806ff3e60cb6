"""Attribution patching is the derivative of mean ablation; circuits by another ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.patching import attribution_patching
from affectlens.circuits.evidence import AblationSettings, ablate
from affectlens.circuits.interventions import Intervention, heads, intervening, neurons
from affectlens.circuits.ranking import reranked
from affectlens.circuits.tasks import CarryOver, margins
from affectlens.core.errors import DataError
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_scores_are_the_slope_of_the_margin_from_the_value_to_its_mean(
    tiny_model: Any, family: str
) -> None:
    """Finite differences: every value of a unit moved a little of the way, at every token.

    Families with smooth neurons: at the kinks of a ReLU there is no slope.
    """
    model = tiny_model(family)
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    by_neuron, by_head = attribution_patching(model, task, means, EMOTIONS)
    clean = task.scores(model)
    e = 1
    for find, scores, kind, layer, index in (
        (neurons, by_neuron, "neurons", 0, int(by_neuron[e, 0].abs().argmax())),
        (neurons, by_neuron, "neurons", 2, 5),
        (heads, by_head, "heads", 1, 2),
    ):
        mean = means.mean(kind).mean(0)[layer]
        at, where = find(model, layer, [index])
        step = 0.05  # large enough for float32, small enough for the curve
        slope = []
        for signed in (step, -step):
            part = Intervention(at, lambda x, s=signed, m=mean: x + s * (m - x), where)
            with intervening(model, [part]):
                slope.append(margins(task.scores(model), clean)[:, e].mean())
        wanted = -(slope[0] - slope[1]) / (2 * step)
        assert float(scores[e, layer, index]) == pytest.approx(wanted, rel=0.03, abs=1e-5)


def test_texts_without_a_continuation_do_not_count(tiny_model: Any) -> None:
    model = tiny_model("llama")
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    task = CarryOver.of(model, corpus(), EMOTIONS)  # one continuation of each text names a feeling
    own = [g for g in range(3) if task.rows[g][0][0] is not None]
    kept = CarryOver(EMOTIONS, ("a",) * 2, ("a", "b"), tuple(task.rows[g] for g in own))
    for ours, theirs in zip(
        attribution_patching(model, task, means, ["anger"]),
        attribution_patching(model, kept, means, ["anger"]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    with pytest.raises(DataError, match="no texts for disgust"):
        attribution_patching(model, task, means, ["disgust"])


def test_what_it_ranks_first_matters_more_than_random_units(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(4), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    scores = attribution_patching(model, task, means, EMOTIONS)
    circuit = reranked(random_circuit(model), *scores, neurons=12, heads=2, how="patching")
    for effect in ablate(
        model, task, circuit, means, AblationSettings(counts=(12,), draws=4)
    ).effects():
        assert effect.change > 0 and effect.change > 3 * abs(effect.random)


def test_reranked_takes_the_highest_of_the_whole_model(tiny_model: Any) -> None:
    model = tiny_model("llama")
    circuit = random_circuit(model)
    rng = np.random.default_rng(0)
    by_neuron = torch.from_numpy(rng.normal(size=circuit.neuron_scores.shape)).float()
    by_head = torch.from_numpy(rng.normal(size=circuit.head_scores.shape)).float()
    new = reranked(circuit, by_neuron, by_head, neurons=7, heads=3, how="noise")
    for e, emotion in enumerate(EMOTIONS):
        for kind, scores, count in (("neurons", by_neuron, 7), ("heads", by_head, 3)):
            flat = sorted(scores[e].flatten().tolist(), reverse=True)[:count]
            found = sorted((unit.score for unit in new.units(emotion, kind)), reverse=True)
            assert found == pytest.approx(flat)
            for unit in new.units(emotion, kind):
                assert float(scores[e, unit.layer, unit.index]) == pytest.approx(unit.score)
    assert new.allocation.sum((1, 2)).tolist() == [10] * 3
    assert new.provenance.fingerprint != circuit.provenance.fingerprint
    with pytest.raises(DataError, match="hold NaN"):
        reranked(circuit, by_neuron * float("nan"), by_head, neurons=1, heads=1, how="x")
    with pytest.raises(DataError, match="There are 12 heads, not 13"):
        reranked(circuit, by_neuron, by_head, neurons=1, heads=13, how="x")
