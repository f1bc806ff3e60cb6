"""``affectlens circuit find``, ``patch`` and ``edges`` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from affectlens.circuits import Circuit, find_circuit, unit_means
from affectlens.circuits.attribution.edge_scores import EdgeScores
from affectlens.circuits.attribution.scores import UnitScores
from affectlens.circuits.evidence import AblationCurve
from affectlens.circuits.ranking import Search, find_by
from affectlens.circuits.tasks import CarryOver
from affectlens.cli import app
from affectlens.core import EMOTIONS
from affectlens.datasets import load
from affectlens.geometry import Directions
from affectlens.models import load_model
from tests.cli.test_circuit import folder

__all__ = ["folder"]


def asked(folder: Path, *words: str) -> Result:
    texts = ["--corpus", str(folder / "own.jsonl"), "--means-corpus", str(folder / "own.jsonl")]
    command = ["circuit", words[0], "--out", str(folder), "--dtype", "float32", *texts, *words[1:]]
    return CliRunner().invoke(app, command, env={"COLUMNS": "160"})


def rows(done: Result) -> list[dict[str, object]]:
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_patch_saves_scores_and_maps(folder: Path) -> None:
    found = rows(asked(folder, "patch", "--items", "2", "--emotions", "fear", "--json"))
    scores = UnitScores.load(folder / "patch_carry_over.safetensors")
    circuit = Circuit.load(folder / "circuit.safetensors")
    assert scores.emotions == ("fear",) and len(found) == scores.heads.numel()
    own = circuit.emotions.index("fear")
    for row in found:
        at = (row["layer"], row["head"])
        assert row["total"] == pytest.approx(float(scores.heads[0][at]), abs=1e-6)
        assert row["direct"] == pytest.approx(float(circuit.head_scores[own][at]), abs=1e-6)
    page = (folder / "patch_carry_over_fear.html").read_text(encoding="utf-8")
    assert "total effect on the margin" in page


def test_edges_save_scores_and_flows_with_tokens(folder: Path) -> None:
    found = rows(
        asked(folder, "edges", "--items", "2", "--emotions", "fear", "--count", "5", "--json")
    )
    assert len(found) == 5
    scores = EdgeScores.load(folder / "edges_carry_over.safetensors")
    strongest = scores.strongest("fear", 1)[0]
    assert found[0]["sender"] == strongest.sender.name
    page = (folder / "edges_carry_over_fear.html").read_text(encoding="utf-8")
    assert "promotes " in page and "into " in page


def test_find_makes_a_circuit_by_name(folder: Path) -> None:
    done = asked(folder, "find", "--strategy", "direct", "--neurons", "5", "--heads", "1")
    assert done.exit_code == 0, done.output
    found = Circuit.load(folder / "circuit_direct.safetensors")
    before = Circuit.load(folder / "circuit.safetensors")
    for e, emotion in enumerate(EMOTIONS):
        best = before.neuron_scores[e].flatten().topk(5).indices
        units = torch.tensor([u.layer * before.neuron_scores.shape[2] + u.index
                              for u in found.units(emotion, "neurons")])  # fmt: skip
        assert set(units.tolist()) == set(best.tolist())
    assert "circuit_direct.safetensors" in done.output


def alone(folder: Path, *words: str) -> Result:
    """``circuit`` on no run: a model, a corpus, a file."""
    return CliRunner().invoke(
        app, ["circuit", *words, "--dtype", "float32"], env={"COLUMNS": "160"}
    )


def test_find_from_a_model_and_a_corpus_alone_then_all_that_takes_a_circuit(
    folder: Path, tmp_path: Path
) -> None:
    own, file = str(folder / "own.jsonl"), tmp_path / "mine.safetensors"
    (model,) = [str(p.parent) for p in folder.rglob("config.json")]
    texts = ("--corpus", own, "--neurons", "6", "--heads", "2", "--items", "2")
    done = alone(folder, "find", "--model", model, *texts, "--save", str(file))
    assert done.exit_code == 0, done.output
    circuit = Circuit.load(file)
    directions = Directions.load(tmp_path / "mine_directions.safetensors")
    loaded = load_model(model, dtype="float32")
    fit = load(own).filter(role="direction")
    first = find_circuit(loaded, fit, directions, score="contrast", split=None)
    task = CarryOver.of(loaded, fit, EMOTIONS).first(2)
    means = unit_means(loaded, fit, EMOTIONS, position="mean:reply")
    by_hand = find_by(
        "attribution_patching", Search(loaded, first, task, means, neurons=6, heads=2)
    )
    for emotion in EMOTIONS:
        for kind in ("neurons", "heads"):
            units = [unit[:2] for unit in circuit.units(emotion, kind)]
            assert units == [unit[:2] for unit in by_hand.units(emotion, kind)]
    assert torch.equal(circuit.delta_neurons, first.delta_neurons)

    test = ("--circuit", str(file), "--corpus", own, "--means-corpus", own, "--groups", "3")
    parts = ("--parts", "ablation", "--draws", "2")
    tested = alone(folder, "evidence", *test, *parts)
    assert tested.exit_code == 0, tested.output
    shown = CliRunner().invoke(app, ["circuit", "show", "--circuit", str(file), "--json"])
    assert '"verdict": "necessary"' in shown.stdout and shown.exit_code == 0
    curve = AblationCurve.load(tmp_path / "mine_evidence" / "ablation.safetensors")
    assert curve.counts == (2, 6)  # as far as there are units, and then all
    two = CliRunner().invoke(app, ["circuit", "compare", str(file), str(file), "--json"])
    assert two.exit_code == 0 and '"jaccard": 1.0' in two.stdout

    again = alone(folder, "evidence", *test, "--parts", "stability", "--paraphrases", own)
    assert again.exit_code == 1 and "word by word" in again.output
    same = alone(folder, "evidence", *test, "--role", "direction", "--means-role", "tune")
    assert same.exit_code == 1 and "chosen on 2 of the scenarios" in same.output


def test_failures_are_one_sentence(folder: Path) -> None:
    for words, message in (
        (("find", "--strategy", "best"), "Unknown strategy 'best'"),
        (("patch", "--emotions", "awe"), "Unknown emotion 'awe'"),
        (("edges", "--task", "guess"), "Unknown task 'guess'"),
        (("edges", "--circuit", "nowhere.safetensors"), "no circuit nowhere.safetensors"),
    ):
        done = asked(folder, *words)
        assert done.exit_code == 1
        assert message in done.output and "Traceback" not in done.output
