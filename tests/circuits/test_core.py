"""The core's cost: by faithfulness of a circuit of the core alone, and on planted margins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence import (
    CoreCost,
    FaithfulnessSettings,
    Stability,
    core_cost,
    faithfulness,
)
from affectlens.circuits.tasks import CarryOver
from affectlens.core import Provenance
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


def test_it_is_the_faithfulness_of_a_circuit_of_the_core(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    means, circuit = unit_means(model, corpus(), EMOTIONS), random_circuit(model)
    count = max(len(circuit.units(e, "neurons")) for e in EMOTIONS)
    often = np.full((3, count), np.nan)
    for e, emotion in enumerate(EMOTIONS):
        often[e, : len(circuit.units(emotion, "neurons"))] = 0.5
    often[0, :3], often[1, [1, 4]] = 1.0, 0.95  # and none of the third
    made = Provenance("stability", parameters={"kind": "neurons"})
    stable = Stability(EMOTIONS, np.ones((3, 2)), np.zeros(3), np.full(3, np.nan), often, made)
    settings = FaithfulnessSettings(shares=(100,), draws=2, at="all")
    found = core_cost(model, task, circuit, means, stable, settings)
    assert [core for _, core in found.units] == [3, 2, 0]
    chosen = {
        emotion: tuple(u for u in circuit.units(emotion, "neurons") if u[:2] in core)
        for emotion in EMOTIONS
        for core in [set(stable.core(circuit, emotion))]
    }
    whole = faithfulness(model, task, circuit, means, settings)
    alone = faithfulness(model, task, replace(circuit, neurons=chosen), means, settings)
    for mine, theirs in (
        (found.circuit, whole.circuit),
        (found.core, alone.circuit),
        (found.whole, whole.whole),
        (found.empty, whole.empty),
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    np.testing.assert_allclose(found.random[2], [found.core[2]] * 2, atol=1e-5)  # nothing is drawn
    assert np.abs(found.random[0] - found.core[0]).max() > 1e-5


def planted(core: float, random: float) -> CoreCost:
    """40 texts; the model's margin is 4, the circuit keeps .8 of it, noise .5."""
    rng = np.random.default_rng(0)

    def around(f: float, *shape: int) -> Any:
        return 4 * f + 0.5 * rng.normal(size=(3, *shape, 40))

    return CoreCost(
        EMOTIONS,
        ((20, 8),) * 3,
        tuple(f"s{i // 2}" for i in range(40)),
        around(1.0),
        around(0.0),
        around(0.8),
        around(core),
        around(random, 5),
        Provenance("core_cost", parameters={"kind": "neurons"}),
    )


def test_cost_and_control(tmp_path: Path) -> None:
    for one in planted(0.7, 0.3).results():
        assert one.kept == pytest.approx(0.7, abs=0.1) and one.cost == pytest.approx(0.1, abs=0.1)
        assert one.interval[0] < one.cost < one.interval[1] and one.p < 0.01
    assert all(one.p > 0.01 for one in planted(0.5, 0.5).results())
    found = planted(0.7, 0.3)
    found.save(tmp_path / "c.safetensors")
    assert CoreCost.load(tmp_path / "c.safetensors").table_rows() == found.table_rows()
    assert "core=40%" in repr(found)
