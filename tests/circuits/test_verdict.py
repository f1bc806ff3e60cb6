"""A circuit keeps its evidence exactly as long as the evidence is about its units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.circuits import Circuit
from affectlens.circuits.ranking import reranked
from affectlens.circuits.verdict import UNTESTED, Evidence, Finding
from affectlens.core import Provenance
from affectlens.core.errors import ArtefactError, MismatchError, UnknownNameError
from tests.circuits.test_circuit import random_circuit


def with_findings(circuit: Circuit) -> Circuit:
    found = Finding("passed", "fall", 0.068, 0.007, 0.0002, "carry-over", 32, 16, 20, "a.json")
    return circuit.with_evidence(
        Evidence(
            circuit.units_fingerprint,
            {
                "anger": {"necessary": found, "specific": Finding("failed", "fall", 0.1, 0.2)},
                "fear": {"necessary": Finding("failed", "fall", 0.01, 0.02, 1.0)},
            },
            Provenance("evidence", model=circuit.provenance.model, model_name="tiny"),
        )
    )


@pytest.fixture(scope="module")
def circuit(tiny_model: Any) -> Circuit:
    return with_findings(random_circuit(tiny_model("llama")))


def test_untested_is_said_wherever_a_circuit_is_shown(circuit: Circuit) -> None:
    bare = circuit.with_evidence(None)
    assert f"evidence={UNTESTED}" in repr(bare) and UNTESTED in bare._repr_html_()
    says = "necessary 1 of 2, sufficient untested, specific 0 of 1, stable untested"
    assert says in repr(circuit) and says in circuit._repr_html_()


def test_findings_in_words(circuit: Circuit) -> None:
    evidence = circuit.evidence
    assert evidence is not None
    said = {word: str(evidence.finding("anger", word)) for word in ("necessary", "stable")}
    assert said == {"necessary": "passed (0.068 against 0.007, p 0.0002)", "stable": "untested"}
    assert str(evidence.finding("anger", "specific")) == "failed (0.100 against 0.200)"
    rows = evidence.table_rows()
    assert len(rows) == 8 and rows[0]["file"] == "a.json" and rows[0]["draws"] == 20
    with pytest.raises(UnknownNameError, match="Unknown verdict 'true'"):
        evidence.finding("anger", "true")
    with pytest.raises(UnknownNameError, match="Unknown outcome"):
        Finding("maybe")


def test_what_numbers_are_is_told_by_an_emotion_that_has_them() -> None:
    none, some = Finding(what="there is no margin"), Finding("failed", "share kept", 0.2)
    evidence = Evidence("x", {"anger": {"sufficient": none}, "fear": {"sufficient": some}})
    assert evidence.told("sufficient") is some and evidence.told("stable") is None
    alone = Evidence("x", {"anger": {"sufficient": none}, "fear": {}})
    assert alone.told("sufficient") is none


def test_other_units_lose_it_other_deltas_do_not(circuit: Circuit) -> None:
    assert circuit.only("neurons").evidence is None
    assert circuit.randomised(1).evidence is None
    again = reranked(
        circuit,
        torch.randn(circuit.neuron_scores.shape),
        torch.randn(circuit.head_scores.shape),
        neurons=5,
        heads=2,
        how="noise",
    )
    assert again.evidence is None
    other = circuit.with_delta(circuit.delta_neurons * 2, how="twice")
    assert other.evidence is circuit.evidence
    with pytest.raises(MismatchError, match="other units"):
        again.with_evidence(circuit.evidence)


def test_order_of_units_counts(circuit: Circuit) -> None:
    bare = circuit.with_evidence(None)
    flipped = reranked(
        bare, -bare.neuron_scores, bare.head_scores, neurons=192, heads=3, how="turned"
    )
    straight = reranked(
        bare, bare.neuron_scores, bare.head_scores, neurons=192, heads=3, how="not turned"
    )
    assert set(map(lambda u: u[:2], flipped.neurons["fear"])) == set(
        map(lambda u: u[:2], straight.neurons["fear"])
    )
    assert flipped.units_fingerprint != straight.units_fingerprint


class TestFile:
    def test_saved_with_the_circuit(self, circuit: Circuit, tmp_path: Path) -> None:
        circuit.save(tmp_path / "c.safetensors")
        back = Circuit.load(tmp_path / "c.safetensors")
        assert back.evidence is not None and circuit.evidence is not None
        assert back.evidence.table_rows() == circuit.evidence.table_rows()
        assert back.evidence.provenance == circuit.evidence.provenance
        circuit.with_evidence(None).save(tmp_path / "bare.safetensors")
        assert Circuit.load(tmp_path / "bare.safetensors").evidence is None
        assert back.provenance.fingerprint == circuit.provenance.fingerprint

    def test_alone(self, circuit: Circuit, tmp_path: Path) -> None:
        assert circuit.evidence is not None
        path = tmp_path / "evidence.json"
        circuit.evidence.save(path)
        assert Evidence.load(path).to_dict() == circuit.evidence.to_dict()
        plain = json.loads(path.read_text())
        plain["findings"]["anger"]["necessary"]["outcome"] = "sure"
        path.write_text(json.dumps(plain))
        with pytest.raises(ArtefactError, match="damaged"):
            Evidence.load(path)
        plain["provenance"]["kind"] = "pack"
        path.write_text(json.dumps(plain))
        with pytest.raises(MismatchError, match="This is a pack"):
            Evidence.load(path)
