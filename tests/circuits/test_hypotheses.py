"""Tests of circuits have the right level under simulated nulls, and find what is planted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits import choose
from affectlens.circuits.evidence import (
    Stability,
    StabilitySettings,
    fold_scores,
    hypotheses,
    stability,
)
from affectlens.circuits.evidence.hypotheses import (
    by_scenario,
    equivalence,
    independence,
    nearer,
)
from affectlens.core.errors import DataError
from affectlens.datasets.schema import Corpus
from tests.circuits.helpers import EMOTIONS, random_directions, small_corpus
from tests.circuits.test_circuit import random_circuit
from tests.circuits.test_faithfulness import planted


class TestEquivalence:
    def test_is_the_binomial_test(self) -> None:
        """Brute force over all outcomes of ten coins at the edge of the null."""
        n, edge = 10, 0.6
        for wins in range(n + 1):
            far = max(wins, n - wins)
            mass = [math.comb(n, k) * edge**k * (1 - edge) ** (n - k) for k in range(n + 1)]
            wanted = min(1.0, sum(mass[far:]) + sum(mass[: n - far + 1]))
            assert equivalence(np.array([1.0] * wins + [-1.0] * (n - wins))) == pytest.approx(
                wanted
            )

    def test_level_at_the_edge_of_the_null(self) -> None:
        rng = np.random.default_rng(0)
        p = np.array([equivalence(np.where(rng.random(40) < 0.6, 1.0, -1.0)) for _ in range(600)])
        assert 0.01 < np.mean(p < 0.05) <= 0.065

    def test_a_circuit_that_is_always_worse_is_not_the_model(self) -> None:
        assert equivalence(-np.ones(16)) < 0.001
        with pytest.raises(DataError, match="tolerance"):
            equivalence(np.ones(3), 0.7)


class TestIndependence:
    def test_uniform_under_independence(self) -> None:
        rng = np.random.default_rng(1)
        p = np.array(
            [
                independence(rng.normal(size=16), rng.normal(size=16), draws=99, seed=s)
                for s in range(300)
            ]
        )
        assert 0.025 <= np.mean(p <= 0.05) <= 0.085
        assert np.abs(np.quantile(p, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.09

    def test_finds_dependence_that_no_correlation_shows(self) -> None:
        x = np.linspace(-2, 2, 40)
        assert independence(x**2, x) < 0.01
        with pytest.raises(DataError, match="four pairs"):
            independence(x[:3], x[:3])


class TestNearer:
    def test_uniform_where_the_circuit_is_random(self) -> None:
        rng = np.random.default_rng(2)
        p = []
        for s in range(300):
            # A symmetric null: one random circuit against one.
            model = rng.normal(size=16)
            p.append(
                nearer(rng.normal(size=16), rng.normal(size=(1, 16)), model, draws=199, seed=s)
            )
        assert 0.025 <= np.mean(np.array(p) <= 0.05) <= 0.085
        assert abs(np.median(p) - 0.5) < 0.09

    def test_finds_a_circuit_that_is_near(self) -> None:
        model = np.random.default_rng(3).normal(size=16)
        assert nearer(model + 0.1, np.zeros((5, 16)), model) < 0.01


def test_all_of_them_from_margins() -> None:
    near, far = hypotheses(planted(1.0, 0.0)), hypotheses(planted(0.0, 0.0))
    for one in near:
        assert one.words()["sufficiency"] == "shown" and one.equivalence > 0.05
    for one in far:
        assert one.words() == {
            "equivalence": "rejected",
            "independence": "not rejected",
            "sufficiency": "not shown",
        }
    np.testing.assert_allclose(by_scenario(np.array([1.0, 5, 3]), ["b", "a", "b"]), [5, 2])


class TestStability:
    @pytest.fixture(scope="class")
    def circuit(self, tiny_model: Any) -> Any:
        return random_circuit(tiny_model("llama"))

    def scores(self, circuit: Any, noise: float, folds: int = 6) -> Any:
        generator = torch.Generator().manual_seed(0)
        shape = (folds, *circuit.neuron_scores.shape)
        return {"neurons": circuit.neuron_scores + noise * torch.randn(shape, generator=generator)}

    def test_the_same_texts_give_the_same_units(self, circuit: Any) -> None:
        found = stability(circuit, self.scores(circuit, 0.0))
        assert (found.halves == 1).all() and (found.chance < 0.6).all()
        for emotion in circuit.emotions:
            assert found.findings()[emotion]["stable"].outcome == "passed"
            ranked = [(u.layer, u.index) for u in circuit.ranked(emotion, "neurons")]
            assert found.core(circuit, emotion) == ranked
        assert (found.core_share() == 1).all()

    def test_noise_agrees_as_far_as_chance(self, circuit: Any, tmp_path: Path) -> None:
        found = stability(circuit, self.scores(circuit, 1e4), StabilitySettings(splits=60))
        np.testing.assert_allclose(found.halves.mean(), found.chance.mean(), atol=0.05)
        for words in found.findings().values():
            assert words["stable"].outcome == "failed"
        assert found.core_share().max() < 0.5
        found.save(tmp_path / "s.safetensors")
        assert Stability.load(tmp_path / "s.safetensors").table_rows() == found.table_rows()

    def test_paraphrases_must_give_the_same_units_too(self, circuit: Any, tmp_path: Path) -> None:
        exact, noise = self.scores(circuit, 0.0), self.scores(circuit, 1e4)
        same = stability(circuit, exact, paraphrased=exact)
        assert (same.paraphrased == 1).all()
        assert all(w["stable"].outcome == "passed" for w in same.findings().values())
        other = stability(circuit, exact, paraphrased=noise)
        for e, emotion in enumerate(circuit.emotions):
            again = choose(noise["neurons"].mean(0), circuit.allocation[..., 1], circuit.emotions)
            mine = {u[:2] for u in circuit.units(emotion, "neurons")}
            theirs = {u[:2] for u in again[emotion]}
            wanted = len(mine & theirs) / len(mine | theirs)
            assert other.paraphrased[e] == pytest.approx(wanted)
            found = other.findings()[emotion]["stable"]
            assert found.outcome == "failed" and found.number == pytest.approx(wanted)
            assert "paraphrases (1.000, " in found.what
        other.save(tmp_path / "s.safetensors")
        assert Stability.load(tmp_path / "s.safetensors").table_rows() == other.table_rows()
        assert other.provenance.parameters["scores"] != same.provenance.parameters["scores"]

    def test_scores_of_folds_average_to_those_of_all(self, tiny_model: Any) -> None:
        from affectlens.circuits import contributions

        model = tiny_model("llama")
        records = [
            record.__class__(
                **{**vars(record), "id": f"{n}{record.id}", "group": f"{n}{record.group}"}
            )
            for n in range(2)
            for record in small_corpus().records
        ]
        texts, directions = Corpus("small", "replies", tuple(records)), random_directions(model)
        found = fold_scores(model, texts, directions, folds=4)
        whole = contributions(model, texts, directions, score="contrast")
        torch.testing.assert_close(found["neurons"].mean(0), whole.neurons, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found["heads"].mean(0), whole.heads, atol=1e-5, rtol=1e-4)
        assert found["heads"].shape == (4, len(EMOTIONS), model.n_layers, 4)
        with pytest.raises(DataError, match="4 scenarios do not make 9"):
            fold_scores(model, texts, directions, folds=9)

    def test_bad_input(self, circuit: Any) -> None:
        with pytest.raises(DataError, match="four folds"):
            StabilitySettings(folds=3)
        with pytest.raises(DataError, match="four folds or more"):
            stability(circuit, self.scores(circuit, 0.0, folds=2))
