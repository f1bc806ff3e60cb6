"""Random units: as many in every sublayer, other ones, refined by the same descent."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from affectlens.circuits import Circuit, Unit
from affectlens.circuits.units import unit_sizes
from affectlens.core import DataError, Provenance
from affectlens.datasets import Corpus, Message, Record
from affectlens.evaluation.arms.random_units_refined import RANDOM_UNITS_REFINED
from affectlens.pipeline import RunConfig
from affectlens.pipeline import corpus_files as corpora
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.settings import Settings
from affectlens.pipeline.stages import controls as stage
from affectlens.steering.refine import RefineSettings, refine_circuit

EMOTIONS = ("anger", "fear")


def some_circuit(model: Any) -> Circuit:
    """Three neurons and a head in block 1, two neurons in block 2, per emotion."""
    n, d_mlp, heads = model.n_layers, model.anatomy.d_mlp, model.anatomy.n_heads
    units = tuple(Unit(n, i, 1.0) for n, i in ((1, 0), (1, 5), (1, 9), (2, 3), (2, 4)))
    allocation = torch.zeros(2, n, 2, dtype=torch.long)
    allocation[:, 1], allocation[:, 2, 1] = torch.tensor([1, 3]), 2
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(2, n, *shape, generator=generator)

    return Circuit(
        emotions=EMOTIONS,
        neurons=dict.fromkeys(EMOTIONS, units),
        heads=dict.fromkeys(EMOTIONS, (Unit(1, 0, 1.0),)),
        neuron_scores=drawn(d_mlp),
        head_scores=drawn(heads),
        delta_neurons=drawn(d_mlp),
        delta_heads=drawn(model.anatomy.width("z")),
        allocation=allocation,
        sizes=unit_sizes(model.anatomy),
        routed=torch.zeros(model.n_layers, dtype=torch.long),
        influence=None,
        delta_source="group_mean",
        position="last",
        provenance=Provenance("circuit", model=model.fingerprint),
    )


def groups() -> Corpus:
    return Corpus(
        "own",
        "replies",
        tuple(
            Record(
                id=f"{g}:{e}",
                messages=(
                    Message("user", f"The train was late {g}."),
                    Message("assistant", f"I am so {'angry' if e == 'anger' else 'afraid'} {g}"),
                ),
                emotion=e,
                valence=None,
                group=f"g{g}",
                theme="t",
                split="fit",
            )
            for g in range(4)
            for e in EMOTIONS
        ),
    )


def test_units_are_matched_and_refined_alike(
    tiny_model: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    model = tiny_model("llama")
    found = some_circuit(model)
    found.save(tmp_path / "circuit.safetensors")
    monkeypatch.setattr(stage, "refine_corpora", lambda *_: [groups()])
    context = RunContext(RunConfig(out=tmp_path))
    context.__dict__["model"] = model
    run = context.stage("controls")
    descent = RefineSettings(steps=3, groups_per_step=2, learning_rate=0.5, start=2.0, seed=7)
    run = replace(run, settings=replace(run.settings, refine=descent))
    files = stage.controls(run)
    assert len(files) == 8
    masks = [found.masks()]
    for draw in (1, 2, 3, 4):
        drawn = Circuit.load(tmp_path / stage.random_units(draw))
        refined = Circuit.load(tmp_path / stage.random_units_refined(draw))
        masks.append(drawn.masks())
        for theirs, ours in zip(found.masks(), drawn.masks(), strict=True):
            assert torch.equal(theirs.sum(-1), ours.sum(-1))
        # They start from their own differences ...
        assert torch.equal(drawn.delta_neurons, found.delta_neurons)
        assert torch.equal(drawn.delta_heads, found.delta_heads)
        # ... and end where the circuit's own descent takes such units, and nowhere else.
        alike = refine_circuit(model, drawn, [groups()], settings=descent)
        torch.testing.assert_close(refined.delta_neurons, alike.delta_neurons)
        torch.testing.assert_close(refined.delta_heads, alike.delta_heads)
        neurons, _ = drawn.masks()
        assert not refined.delta_neurons[~neurons].any()
        assert not torch.equal(
            refined.delta_neurons[neurons], descent.start * drawn.delta_neurons[neurons]
        )
    assert not any(torch.equal(a[0], b[0]) for a, b in itertools.pairwise(masks))


def test_the_descent_is_the_circuit_s(tmp_path: Path) -> None:
    for seed in (0, 3):
        settings = Settings.of(RunConfig(out=tmp_path, seed=seed))
        assert settings.controls.refine == settings.circuit.refine
        assert settings.controls.mix == settings.circuit.mix
        assert len(set(settings.controls.seeds)) == len(RANDOM_UNITS_REFINED) == 4


def test_a_refined_circuit_gives_no_random_units(tiny_model: Any) -> None:
    model = tiny_model("llama")
    descent = RefineSettings(steps=1, groups_per_step=1)
    refined = refine_circuit(model, some_circuit(model), [groups()], settings=descent)
    with pytest.raises(DataError, match="before it was refined"):
        refined.randomised(1)
    # A single kind that was fitted is enough, and one without units does not matter.
    found = some_circuit(model)
    masked = found.delta_neurons * found.masks()[0]
    with pytest.raises(DataError, match="neurons outside this circuit"):
        found.with_delta(masked, how="fitted").randomised(1)
    assert found.with_delta(masked, how="fitted").only("heads").randomised(1).heads


def test_expression_remembers_its_openers(tmp_path: Path) -> None:
    from affectlens.pipeline.expression import openers_of

    records = [
        replace(r, id=f"own:{r.id}", group=f"own:{r.group}", meta={"opener": f"Oh {i % 3}."})
        for i, r in enumerate(groups())
    ]
    corpus = Corpus("expression", "replies", (*records, *groups()))
    corpora.save_corpus(corpus, tmp_path / "e.jsonl")
    back = corpora.load_corpus(tmp_path / "e.jsonl")
    assert openers_of(back) == ("Oh 0.", "Oh 1.", "Oh 2.")
