"""Two circuits beside each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from affectlens.circuits.units_in_common import UnitsInCommon
from affectlens.core import DataError, MismatchError
from tests.circuits.test_circuit import random_circuit


def test_equals_brute_force(tiny_model: Callable[..., Any]) -> None:
    first, second = (
        random_circuit(tiny_model("llama"), seed=0),
        random_circuit(tiny_model("llama"), seed=1),
    )
    found = UnitsInCommon.of(first, second)
    assert len(found.rows) == 2 * len(first.emotions)
    for row in found.rows:
        mine, theirs, other = (
            {(u.layer, u.index) for u in circuit.units(emotion, row.kind)}
            for circuit, emotion in (
                (first, row.emotion),
                (second, row.emotion),
                (second, next(e for e in second.emotions if e != row.emotion)),
            )
        )
        assert (row.first, row.second, row.both) == (len(mine), len(theirs), len(mine & theirs))
        assert row.jaccard == pytest.approx(len(mine & theirs) / len(mine | theirs))
        if len(second.emotions) == 2:
            assert row.others == pytest.approx(len(mine & other) / len(mine | other))
        e = first.emotions.index(row.emotion)
        scores = [
            (c.neuron_scores if row.kind == "neurons" else c.head_scores)[e].flatten().numpy()
            for c in (first, second)
        ]
        told = ~((scores[0] == 0) & (scores[1] == 0))
        wanted = stats.spearmanr(scores[0][told], scores[1][told]).statistic
        assert row.spearman == pytest.approx(wanted, abs=1e-6)


def test_a_circuit_and_itself(tiny_model: Callable[..., Any]) -> None:
    circuit = random_circuit(tiny_model("llama"), seed=0)
    for row in UnitsInCommon.of(circuit, circuit).rows:
        assert row.jaccard == 1 and row.both == row.first == row.second
        assert row.spearman == pytest.approx(1) and row.expected < 1


def test_chance_is_told_as_chance(tiny_model: Callable[..., Any]) -> None:
    """Random units of the same layers: the p-values of many draws are not small too often."""
    circuit = random_circuit(tiny_model("llama"), seed=0)
    small = [
        np.mean([r.p < 0.05 for r in UnitsInCommon.of(circuit, circuit.randomised(seed)).rows])
        for seed in range(20)
    ]
    assert np.mean(small) < 0.05  # Holm, over all rows of a comparison


def test_what_cannot_be_compared(tiny_model: Callable[..., Any]) -> None:
    circuit = random_circuit(tiny_model("llama"), seed=0)
    other = replace(circuit, provenance=replace(circuit.provenance, model="another"))
    with pytest.raises(MismatchError, match="affectlens compare"):
        UnitsInCommon.of(circuit, other)
    names = tuple(f"{e}x" for e in circuit.emotions)
    renamed = replace(
        circuit,
        emotions=names,
        neurons=dict(zip(names, circuit.neurons.values(), strict=True)),
        heads=dict(zip(names, circuit.heads.values(), strict=True)),
    )
    with pytest.raises(DataError, match="share no emotion"):
        UnitsInCommon.of(circuit, renamed)
