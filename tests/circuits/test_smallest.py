"""How many units are enough: on planted curves, in files, from the evidence into a pack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits.evidence import FaithfulnessCurve
from affectlens.circuits.evidence.smallest import smallest
from affectlens.circuits.verdict import Evidence, Smallest
from affectlens.core import Provenance
from affectlens.core.errors import ArtefactError, DataError
from affectlens.core.statistics import against_draws, holm
from affectlens.steering import SteeringPack
from tests.circuits.test_carry_over import EMOTIONS
from tests.circuits.test_circuit import random_circuit

SHARES = (1.0, 5.0, 20.0, 100.0)
SIZES = torch.tensor([[4, 60], [3, 41]])


def planted(f: Any, random: Any, scenarios: int = 20, seed: int = 0) -> FaithfulnessCurve:
    """Three emotions, two texts a scenario; of the model 4, of nothing 0, noise 1."""
    rng, n = np.random.default_rng(seed), 2 * scenarios

    def noise(*shape: int) -> Any:
        return rng.normal(size=(3, *shape, n))

    left, beside = (4 * np.asarray(x)[None, :, None] for x in (f, random))
    return FaithfulnessCurve(
        emotions=EMOTIONS,
        shares=SHARES,
        scenarios=tuple(f"s{i // 2}" for i in range(n)),
        whole=noise() * 0.1 + 4,
        empty=noise() * 0.1,
        circuit=noise() + 3,
        without=noise(),
        left=noise(4) + left,
        random_circuits=noise(5),
        random_left=noise(4, 5) + beside[..., None, :],
        provenance=Provenance(
            "faithfulness",
            parameters={"by": "mean", "task": "carry_over", "kinds": ["heads", "neurons"]},
        ),
    )


def test_it_is_the_first_share_that_keeps_half_and_more_than_random() -> None:
    found = smallest(planted([0.1, 0.8, 0.9, 1.0], [0.0, 0.1, 0.8, 1.0]), SIZES)
    for one in found.values():
        assert (one.outcome, one.share) == ("passed", 5.0)
        assert (one.heads, one.neurons) == (1, 6)  # of 7 heads and 101 neurons, rounded up
        assert one.f == pytest.approx(0.8, abs=0.1) and one.random == pytest.approx(0.1, abs=0.1)
        assert one.p is not None and one.p < 0.01
    as_random = smallest(planted([0.8, 0.8, 0.9, 1.0], [0.8, 0.8, 0.9, 1.0]), SIZES)
    too_little = smallest(planted([0.1, 0.2, 0.3, 1.0], [0.0, 0.0, 0.0, 1.0]), SIZES)
    for one in (*as_random.values(), *too_little.values()):
        assert (one.outcome, one.share, one.heads) == ("failed", 20.0, 0)
        assert str(one) == "none up to 20 %"
    few = smallest(planted([0.1, 0.8, 0.9, 1.0], [0.0] * 4, scenarios=8), SIZES)
    assert all(str(one) == "untested" for one in few.values())


def test_p_counts_every_share_that_was_looked_at() -> None:
    curve = planted([0.3, 0.4, 0.5, 1.0], [0.2, 0.2, 0.3, 1.0])
    p, plain = curve.share_p(), list[float]()
    for e in range(3):
        for k in range(3):
            random = curve.random_left[e, k]
            plain.append(against_draws(curve.left[e, k], random, curve.scenarios).p)
    np.testing.assert_allclose(p[:, :3].ravel(), holm(plain))
    assert np.isnan(p[:, 3]).all()
    rows = curve.table_rows()
    assert rows[0]["p"] == pytest.approx(p[0, 0])


def test_where_nothing_is_better_than_random_none_is_enough() -> None:
    level = [0.6, 0.7, 0.8, 1.0]
    found = [
        one.outcome == "passed"
        for seed in range(25)
        for one in [next(iter(smallest(planted(level, level, seed=seed), SIZES).values()))]
    ]
    assert np.mean(found) <= 0.04


def test_it_goes_from_the_evidence_to_circuit_and_pack(tiny_model: Any, tmp_path: Path) -> None:
    model = tiny_model("llama")
    bare = random_circuit(model)
    enough = {
        "anger": Smallest("passed", 5.0, 1, 10, 0.7, 0.1, 0.002),
        "fear": Smallest("failed", 20.0),
        "happiness": Smallest(),
    }
    made_by = Provenance("evidence", model=model.fingerprint)
    words: Any = {emotion: {} for emotion in EMOTIONS}
    evidence = Evidence(bare.units_fingerprint, words, made_by, enough)
    circuit = bare.with_evidence(evidence)
    circuit.save(tmp_path / "c.safetensors")
    back = type(circuit).load(tmp_path / "c.safetensors")
    assert back.evidence is not None and dict(back.evidence.smallest) == enough
    assert "1 heads and 10 neurons (5 %) keep 0.700" in str(back.evidence.smallest_rows()[0])

    pack = SteeringPack.from_circuit(back, model)
    pack.save(tmp_path / "p.safetensors")
    again = SteeringPack.load(tmp_path / "p.safetensors")
    assert dict(again.enough) == {
        "anger": {"share": 5.0, "heads": 1, "neurons": 10, "f": 0.7, "random": 0.1, "p": 0.002}
    }
    assert again.provenance.inputs["evidence"] == made_by.fingerprint
    assert "enough=anger 11 units" in repr(again)
    plain = SteeringPack.from_circuit(bare, model)
    assert not plain.enough and "evidence" not in plain.provenance.inputs
    assert plain.fingerprint != again.fingerprint
    assert SteeringPack.merge(again).enough == again.enough
    with pytest.raises(DataError, match="lacks a number f"):
        replace(again, enough={"anger": {**again.enough["anger"], "f": float("nan")}})


def test_evidence_of_other_parts_says_nothing_of_it(tmp_path: Path) -> None:
    Evidence("x", {}, Provenance("evidence")).save(tmp_path / "e.json")
    plain = json.loads((tmp_path / "e.json").read_text())
    assert plain["smallest"] == {}
    plain["smallest"] = {"anger": {"outcome": "sure"}}
    (tmp_path / "e.json").write_text(json.dumps(plain))
    with pytest.raises(ArtefactError, match="damaged"):
        Evidence.load(tmp_path / "e.json")
