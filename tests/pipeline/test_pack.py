"""The stage ``pack``: what steers and what reads, in one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.activations import residual_rms
from affectlens.circuits import Circuit
from affectlens.circuits.evidence.parts import VERDICT
from affectlens.circuits.units import Unit, unit_sizes
from affectlens.circuits.verdict import Evidence, Smallest
from affectlens.core import TONES, DataError, Provenance, Site
from affectlens.datasets import load, spread
from affectlens.evaluation.arms import ARMS, ArmKind, FoldedPack, folded_packs, pack_to_tune
from affectlens.geometry import Directions
from affectlens.models.generation.generation import encode_prompt
from affectlens.pipeline import RunConfig
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.line import STAGES
from affectlens.pipeline.pack_files import untuned_file
from affectlens.pipeline.settings import PackSettings
from affectlens.pipeline.stages.evidence import FOLDER
from affectlens.pipeline.stages.pack import pack
from affectlens.probes import Sweep
from affectlens.probes.held_out import HeldOut
from affectlens.steering import SteeringPack
from affectlens.steering.intensity import CALIBRATED
from affectlens.steering.spec import UNITS

EMOTIONS = ("anger", "fear")


def directions(model: Any) -> Directions:
    vectors = torch.randn(2, 2, model.d_model)
    return Directions(
        EMOTIONS,
        (Site(0, "resid_post"), Site(2, "resid_post")),
        vectors / vectors.norm(dim=-1, keepdim=True),
        torch.ones(2, 2),
        "group_centred",
        torch.ones(2, 2),
        Provenance("directions", model=model.fingerprint),
    )


def circuit(model: Any) -> Circuit:
    n, heads, d_mlp = model.n_layers, model.anatomy.n_heads, model.anatomy.d_mlp
    units = {e: (Unit(1, 0, 1.0),) for e in EMOTIONS}
    return Circuit(
        emotions=EMOTIONS,
        neurons=units,
        heads=units,
        neuron_scores=torch.rand(2, n, d_mlp),
        head_scores=torch.rand(2, n, heads),
        delta_neurons=torch.randn(2, n, d_mlp),
        delta_heads=torch.randn(2, n, model.anatomy.width("z")),
        allocation=torch.zeros(2, n, 2, dtype=torch.long),
        sizes=unit_sizes(model.anatomy),
        routed=torch.zeros(model.n_layers, dtype=torch.long),
        influence=None,
        delta_source="group_mean",
        position="last",
        provenance=Provenance("circuit", model=model.fingerprint),
    )


def sweep(model: Any) -> Sweep:
    """The embeddings are best, but probes read blocks; of those the second is."""
    sites = (Site(0, "resid_pre"), *(Site(i, "resid_post") for i in range(3)))
    cv = torch.tensor([[0.9], [0.4], [0.7], [0.5]])
    return Sweep(
        sites, TONES, cv[:, 0], torch.zeros(4, 2), cv, (1.0,) * 4, (1.0,), 5, "test split",
        {"fit": 1, "held_out": 1}, 0.2,
        torch.randn(4, len(TONES), model.d_model), torch.randn(4, len(TONES)),
        Provenance("sweep", model=model.fingerprint),
        HeldOut(("one",), ("group",), torch.tensor([0]), torch.zeros(4, 1, len(TONES)), TONES),
    )  # fmt: skip


def test_a_pack_can_steer_and_read(tiny_model: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny_model("llama")
    run = RunContext(RunConfig(out=tmp_path))
    run.__dict__["model"] = model
    probes = sweep(model)
    found = {
        "refined": directions(model),
        "directions": directions(model),
        "circuit_refined": circuit(model),
        "circuit": (circuit_found := circuit(model)),
        **{f"random_units_{i}": circuit(model) for i in range(1, 5)},
        **{f"random_units_{i}_refined": circuit(model) for i in range(1, 5)},
        "probes": probes,
    }
    for name, artefact in found.items():
        artefact.save(tmp_path / f"{name}.safetensors")
    few = {"anger": Smallest("passed", 0.5, 3, 4, f=0.7, random=0.1, p=0.001)}
    tested = Evidence(circuit_found.units_fingerprint, {"anger": {}, "fear": {}}, smallest=few)
    (tmp_path / FOLDER).mkdir()
    tested.save(tmp_path / FOLDER / VERDICT)
    files = pack(run.stage("pack"))
    assert set(files) == {untuned_file(name) for name in folded_packs()}
    plain = FoldedPack(
        "pack_plain", lambda made: SteeringPack.from_circuit(made.circuit(refined=False), model)
    )
    with ARMS.adding(ArmKind("plain", "plain", "a toy", "circuit", plain, (2.0,))):
        stage = replace(run.stage("pack"), settings=PackSettings(packs=("pack_plain",)))
        assert pack(stage) == [untuned_file("pack_plain")]
    vectors = SteeringPack.load(tmp_path / untuned_file("pack_plain")).vectors
    expected = circuit_found.folded(model)[1][:, [1]]
    torch.testing.assert_close(vectors["circuit.down_proj_out"], expected)
    made = SteeringPack.load(tmp_path / "pack_untuned.safetensors", model)
    assert made.modes == ("residual", "circuit")
    assert set(made.enough) == {"anger"}  # what the evidence says of the ranking goes along
    assert (made.enough["anger"]["heads"], made.enough["anger"]["neurons"]) == (3, 4)
    assert made.readout is not None
    assert (made.readout.classes, made.readout.layers) == (TONES, (1,))
    assert torch.equal(made.readout.weights, probes.weights[2:3])
    assert torch.equal(made.readout.bias, probes.bias[2:3])
    # The best probe reads too late to decide: one mode begins after block 0, one within block 1.
    assert made.gates is not None and made.gates.layers == (0,)
    assert torch.equal(made.gates.weights, probes.weights[1:2])
    for mode in ("circuit", "residual"):
        assert made.decider(made.resolve(f"anger=1;mode={mode};gate=neutral>0.5")) == 0
    # Every unit that is documented can be asked for, and rms is that of the fitting events.
    fit = load("events").filter(split="fit")
    shown = [encode_prompt(model, event.text) for event in spread(fit, 32)]
    assert made.rms is not None and torch.equal(made.rms, residual_rms(model, shown))
    for unit in UNITS:
        if unit in CALIBRATED:
            with pytest.raises(DataError, match=f"unit={unit} needs"):
                made.resolve(f"anger=1;unit={unit}")
            continue
        assert made.resolve(f"anger=1;unit={unit}")
    tuned = made.with_recommended("circuit", 0.5)
    assert tuned.readout is not None
    assert tuned.resolve("anger=1;gate=neutral>0.5").gate is not None
    assert set(STAGES["pack"].needs) == {"probe", "directions", "circuit", "evidence", "controls"}

    # Each arm is steered by what its name says, and no two of them by the same.
    source = {
        "residual": "refined", "circuit": "circuit_refined", "analytic_residual": "directions",
        "analytic_circuit": "circuit", "random_units_analytic": "random_units_1",
        **{f"random_units_refined_{n}": f"random_units_{n}_refined" for n in range(1, 5)},
    }  # fmt: skip
    assert set(source) == {name for name, arm in ARMS.items() if arm.strengths}
    for arm, name in source.items():
        vectors = SteeringPack.load(tmp_path / untuned_file(pack_to_tune(arm).name)).vectors
        artefact = found[name]
        if isinstance(artefact, Circuit):
            expected = artefact.folded(model)[1][:, [1]]
            torch.testing.assert_close(vectors["circuit.down_proj_out"], expected)
        elif isinstance(artefact, Directions):
            expected = artefact.centroid().transpose(0, 1)
            torch.testing.assert_close(vectors["residual.resid_post"], expected)
