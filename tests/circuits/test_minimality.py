"""Units given back one by one: by the ablation itself, and on planted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence import Minimality, MinimalitySettings, minimality
from affectlens.circuits.interventions import Intervention, intervening, replace
from affectlens.circuits.tasks import CarryOver
from affectlens.core import Provenance
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import WritePoint
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


def test_recovers_what_interventions_say(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    circuit = random_circuit(model)
    found = minimality(model, task, circuit, means, MinimalitySettings(units=3, at="all", draws=2))
    centre, values = task.centre(model), means.mean("neurons").mean(0)

    def margin(units: Any) -> Any:
        changes = []
        for layer in {u.layer for u in units}:
            where = values[layer].new_zeros(1, 1, values.shape[1]).bool()
            where[..., [u.index for u in units if u.layer == layer]] = True
            at = WritePoint(layer, "down_proj_in")
            changes.append(Intervention(at, replace(values[layer]), where))
        with intervening(model, changes):
            return task.margins(model, None, centre)[:, 1]

    units = circuit.ranked("fear", "neurons")[:3]
    assert found.units[1] == tuple((u.layer, u.index) for u in units)
    whole = margin(units)
    for n in range(3):
        wanted = margin([u for i, u in enumerate(units) if i != n]) - whole
        np.testing.assert_allclose(found.recovered[1, n], wanted, atol=1e-5)
    assert np.abs(found.recovered).max() > 1e-4 and np.isfinite(found.random).all()


def planted(needed: int, seed: int = 0, texts: int = 40) -> Minimality:
    """One emotion, six units of which some matter, noise 1."""
    rng = np.random.default_rng(seed)
    recovered = rng.normal(size=(1, 6, texts))
    recovered[0, :needed] += 2.0
    return Minimality(
        ("fear",),
        (tuple((0, i) for i in range(6)),),
        tuple(f"s{i // 2}" for i in range(texts)),
        recovered,
        rng.normal(size=(1, 8, texts)),
        Provenance("minimality", parameters={"kind": "neurons"}),
    )


def test_units_that_matter_are_found_and_others_seldom(tmp_path: Path) -> None:
    assert planted(6).needed()[0] == 1.0
    assert planted(3).needed()[0] == pytest.approx(0.5)
    false = [planted(0, seed).needed()[0] > 0 for seed in range(60)]
    assert np.mean(false) <= 0.12
    few = [planted(0, seed, texts=8) for seed in range(40)]
    assert np.mean([one.needed()[0] > 0 for one in few]) <= 0.1
    assert min(float(one.p().min()) for one in few) >= 2.0**-3  # four scenarios cannot say more
    found = planted(3)
    found.save(tmp_path / "m.safetensors")
    assert Minimality.load(tmp_path / "m.safetensors").table_rows() == found.table_rows()
    assert "needed=50%" in repr(found)


def test_settings() -> None:
    with pytest.raises(UnknownNameError, match="kind of unit"):
        MinimalitySettings(kind="experts")
    with pytest.raises(DataError, match="two units"):
        MinimalitySettings(units=1)
