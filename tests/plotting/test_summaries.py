"""Summaries hold the numbers of their artefacts, and draw the same figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import affectlens as al
from affectlens import plotting as figures
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.evaluation import StrengthPoint
from affectlens.plotting import CircuitSummary, DirectionsSummary, SweepSummary
from affectlens.plotting.summaries import most_reliable_site
from tests.circuits.test_circuit import random_circuit
from tests.conftest import make_tiny
from tests.geometry.synthetic import SITES, planted


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    store, _ = planted()
    return {
        "directions": al.directions(store),
        "sweep": al.sweep(store, draws=50),
        "circuit": random_circuit(make_tiny("llama")),
    }


class TestSweep:
    def test_numbers_are_those_of_the_sweep(self, found: dict[str, Any]) -> None:
        sweep, made = found["sweep"], SweepSummary.of(found["sweep"])
        assert made.layers == [site.layer for site in SITES]
        np.testing.assert_array_equal(made.accuracy, sweep.accuracy.numpy())
        np.testing.assert_array_equal(np.stack([made.low, made.high], 1), sweep.ci.numpy())
        assert made.layers[made.best] == sweep.best.layer
        assert made.chance == 1 / len(sweep.classes)
        assert made.baselines == {"majority": sweep.majority}

    def test_both_draw_the_same(self, found: dict[str, Any]) -> None:
        drawn = figures.probe_accuracy(found["sweep"]).to_json()
        assert drawn == figures.probe_accuracy(SweepSummary.of(found["sweep"])).to_json()


class TestDirections:
    def test_cosines_are_of_the_site_and_halves_of_all(self, found: dict[str, Any]) -> None:
        directions = found["directions"]
        made = DirectionsSummary.of(directions, SITES[1])
        vectors = directions.vectors[1].double().numpy()
        np.testing.assert_allclose(made.cosines, vectors @ vectors.T, atol=1e-6)
        np.testing.assert_array_equal(made.split_half, directions.split_half.numpy())
        assert made.layer == 1 and list(made.layers) == [0, 1]

    def test_the_site_where_halves_agree_best_is_the_default(self, found: dict[str, Any]) -> None:
        directions = found["directions"]
        best = SITES[int(np.argmax(directions.split_half.numpy().mean(axis=1)))]
        assert most_reliable_site(directions) == best
        assert DirectionsSummary.of(directions).layer == best.layer
        default = figures.cosine_heatmap(directions).to_json()
        assert default == figures.cosine_heatmap(directions, best.hook_name).to_json()

    def test_a_site_that_is_not_there_is_refused(self, found: dict[str, Any]) -> None:
        with pytest.raises(UnknownNameError, match="hook_resid_post"):
            figures.cosine_heatmap(found["directions"], "blocks.7.hook_resid_post")

    def test_directions_without_halves_have_no_such_figure(self) -> None:
        with pytest.raises(DataError, match="no split-half"):
            figures.split_half(DirectionsSummary(["a", "b"], np.eye(2), 0))


class TestCircuit:
    def test_the_strongest_neurons_are_kept_in_order(self, found: dict[str, Any]) -> None:
        circuit = found["circuit"]
        made = CircuitSummary.of(circuit, 5)
        ordered = -np.sort(-circuit.neuron_scores.numpy(), axis=-1)
        np.testing.assert_array_equal(made.neurons, ordered[..., :5])
        np.testing.assert_array_equal(made.heads, circuit.head_scores.numpy())
        np.testing.assert_array_equal(made.counts, circuit.allocation.numpy())
        assert made.influence is None and made.layers == list(range(circuit.n_layers))

    def test_overlap_is_that_of_the_neurons(self, found: dict[str, Any]) -> None:
        circuit = found["circuit"]
        made = CircuitSummary.of(circuit).overlap
        first, second = circuit.emotions[:2]
        a, b = ({(u.layer, u.index) for u in circuit.neurons[e]} for e in (first, second))
        assert made is not None and made.jaccard[0, 1] == pytest.approx(len(a & b) / len(a | b))

    def test_a_map_is_of_one_emotion_and_kind(self, found: dict[str, Any]) -> None:
        circuit = found["circuit"]
        drawn = figures.contribution_map(circuit, circuit.emotions[2], "heads").data[0]
        np.testing.assert_array_equal(drawn.z, circuit.head_scores[2].double().numpy())
        for wrong, part in ((("joyy",), "emotion"), ((None, "head"), "kind of unit")):
            with pytest.raises(UnknownNameError, match=part):
                figures.contribution_map(circuit, *wrong)


def test_the_line_over_all_emotions_is_a_mean_and_a_geometric_mean() -> None:
    points = [
        StrengthPoint("circuit", "fear", 1.0, 0.2, 1.0, 0.1),
        StrengthPoint("circuit", "anger", 1.0, 0.6, 4.0, 0.1),
        StrengthPoint("circuit", "anger", 2.0, 0.9, 9.0, 0.1),  # fear was not tried at 2
    ]
    accuracy, ratio = (t for t in figures.strength_curves(points).data if t.name == "all")
    assert list(accuracy.x) == list(ratio.x) == [1.0]
    assert accuracy.y[0] == pytest.approx(0.4) and ratio.y[0] == pytest.approx(math.sqrt(4.0))
