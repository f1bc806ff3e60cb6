"""Unit efficiency: choices at a budget, areas by brute force, and a measurement on a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from affectlens.circuits import Circuit
from affectlens.circuits.evidence.budgets import at_budget, budget_arm
from affectlens.circuits.evidence.efficiency import EfficiencyCurve, trapezia
from affectlens.circuits.influence import InfluenceProfile
from affectlens.cli import app
from affectlens.core import Provenance
from affectlens.core.errors import ArtefactError, DataError, UnknownNameError
from affectlens.core.parquet import write_parquet
from affectlens.core.statistics import against_draws, holm, paired_difference
from affectlens.datasets import Corpus, load
from affectlens.evaluation.judges import load_judge
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.corpus_files import save_corpus
from affectlens.pipeline.efficiency import Efficiency, EfficiencySettings
from affectlens.pipeline.rules import RefineMix
from affectlens.pipeline.run_config import RunConfig
from affectlens.steering.refine import RefineSettings
from tests.circuits.test_carry_over import EMOTIONS as THREE
from tests.circuits.test_circuit import random_circuit

ARMS = ("circuit", "top", "random_1", "random_2")
COUNTS = (8, 16, 64)


def planted(seed: int = 0) -> EfficiencyCurve:
    """A circuit that hears more than random units where there are few of them."""
    rng = np.random.default_rng(seed)
    shares = np.array([[0.5, 0.7, 0.9], [0.4, 0.6, 0.9], [0.1, 0.4, 0.9], [0.1, 0.4, 0.9]])
    events = [f"e{i}" for i in range(24) for _ in THREE]
    hits = (rng.random((4, 3, len(events))) < shares[..., None]).astype(np.float64)
    return EfficiencyCurve(
        arms=ARMS,
        counts=COUNTS,
        events=tuple(events),
        scenarios=tuple(f"s{int(e[1:]) // 2}" for e in events),
        targets=THREE * 24,
        accuracy=np.maximum(hits, (rng.random(hits.shape) < 0.2).astype(np.float64)),
        masked_accuracy=hits,
        perplexity=rng.random((4, 3, 4)) + 1,
        strengths=np.ones((4, 3, 3)),
        provenance=Provenance("efficiency", model="m"),
    )


class TestAreas:
    """Against sums by hand."""

    def test_area_is_the_integral_over_log_units(self) -> None:
        curve = planted()
        found = curve.area("circuit")
        per_row = []
        for row in range(len(curve.targets)):
            height = [
                curve.masked_accuracy[0, k, row]
                - (curve.masked_accuracy[2, k, row] + curve.masked_accuracy[3, k, row]) / 2
                for k in range(3)
            ]
            # From 8 to 16 is one doubling, from 16 to 64 two.
            per_row.append((1 * (height[0] + height[1]) / 2 + 2 * (height[1] + height[2]) / 2) / 3)
        assert found.difference.mean == pytest.approx(np.mean(per_row))
        assert found.value - found.beside == pytest.approx(np.mean(per_row))
        told = paired_difference(per_row, np.zeros(len(per_row)), curve.scenarios)
        assert (found.difference.low, found.difference.high) == pytest.approx((told.low, told.high))
        assert found.difference.clusters == told.clusters == 12
        assert told.low > 0 and told.p < 0.01

    def test_p_beside_random_draws_counts_how_draws_differ(self) -> None:
        """Two draws far apart cannot make one more that lies between them stand out."""
        curve = planted()
        weights = np.array([1 / 6, 3 / 6, 2 / 6])
        own, *draws = (weights @ curve.masked_accuracy[i] for i in (0, 2, 3))
        wanted = against_draws(own, np.array(draws), curve.scenarios)
        assert curve.area("circuit").p == pytest.approx(wanted.p)
        rows = curve.masked_accuracy.copy()
        rows[2], rows[3] = 0, np.maximum(rows[3], rows[0])  # one hears nothing, one all and more
        apart = replace(curve, masked_accuracy=rows)
        assert apart.area("circuit").p > 0.3
        assert (
            paired_difference(weights @ rows[0], weights @ rows[2:4].mean(0), curve.scenarios).p
            < 0.05
        )
        assert apart.area("circuit", "top").p == pytest.approx(curve.area("circuit", "top").p)
        single = replace(curve, arms=("circuit", "top", "random_1", "uniform"))
        assert single.area("circuit").p == 1

    def test_rows_are_paired_and_scenarios_kept_whole(self) -> None:
        """The interval narrows where rows of the arms go together, and not by their order."""
        curve = planted()
        same = replace(
            curve, masked_accuracy=np.repeat(curve.masked_accuracy[:1], 4, axis=0), arms=ARMS
        )
        area = same.area("circuit")
        assert area.difference.mean == area.difference.low == area.difference.high == 0
        order = np.random.default_rng(1).permutation(len(curve.targets))
        shuffled = replace(
            curve,
            events=tuple(curve.events[i] for i in order),
            scenarios=tuple(curve.scenarios[i] for i in order),
            targets=tuple(curve.targets[i] for i in order),
            masked_accuracy=curve.masked_accuracy[..., order],
            accuracy=curve.accuracy[..., order],
        )
        assert shuffled.area("top").difference.low == pytest.approx(
            curve.area("top").difference.low, abs=1e-9
        )

    def test_one_emotion_has_its_own_rows(self) -> None:
        curve = planted()
        own = np.array(curve.targets) == "fear"
        weights = np.array([1 / 6, 3 / 6, 2 / 6])
        np.testing.assert_allclose(trapezia(COUNTS), weights)
        wanted = weights @ curve.masked_accuracy[0][:, own].mean(1)
        assert curve.area("circuit", emotion="fear").value == pytest.approx(wanted)
        found = {(a.arm, a.measure, a.emotion) for a in curve.areas()}
        of_top = [a for a in curve.areas() if (a.arm, a.measure) == ("top", "accuracy")]
        plain = [curve.area("top", "random", "accuracy", a.emotion) for a in of_top]
        fewest = 2.0 ** (1 - len(set(curve.scenarios)))
        assert [one.p for one in plain] == [max(one.difference.p, fewest) for one in plain]
        wanted_p = [plain[0].p, *holm([one.p for one in plain[1:]])]
        np.testing.assert_allclose([a.p for a in of_top], wanted_p)
        assert len(found) == 2 * 2 * 4 and ("top", "accuracy", "all") in found

    def test_under_the_null_it_seldom_leaves_zero(self) -> None:
        outside = 0
        for seed in range(60):
            curve = planted(seed)
            rng = np.random.default_rng(1000 + seed)
            noise = (rng.random(curve.masked_accuracy.shape) < 0.5).astype(np.float64)
            told = replace(curve, masked_accuracy=noise).area("circuit").difference
            outside += told.low > 0 or told.high < 0
        assert outside <= 8

    def test_enough_is_the_smallest_that_loses_nothing(self) -> None:
        curve = planted()
        assert curve.enough("random") == 64
        flat = replace(curve, masked_accuracy=np.repeat(curve.masked_accuracy[:, -1:], 3, axis=1))
        assert flat.enough("circuit") == 8

    def test_one_count_is_the_plain_difference(self) -> None:
        assert trapezia([32]).tolist() == [1.0]
        with pytest.raises(DataError, match="must rise"):
            trapezia([16, 8])
        with pytest.raises(UnknownNameError, match="arm"):
            planted().area("best")
        with pytest.raises(UnknownNameError, match="emotion"):
            planted().area("circuit", emotion="awe")


class TestBudgets:
    """A circuit at other budgets."""

    def test_as_many_units_as_asked_and_random_ones_layer_by_layer(self, tiny_model: Any) -> None:
        circuit = random_circuit(tiny_model("llama"))
        for count in (3, 16, 60):
            own = at_budget(circuit, count)
            for arm in ("circuit", "top", "uniform", "random_1", "random_2"):
                found = budget_arm(circuit, count, arm)
                assert found.allocation.sum((1, 2)).tolist() == [count] * 3
                assert torch_equal(found.allocation.sum(1), own.allocation.sum(1))  # heads, neurons
                if arm.startswith("random"):
                    assert torch_equal(found.allocation, own.allocation)
                for e in circuit.emotions:
                    units = [*found.neurons[e], *found.heads[e]]
                    assert len(units) == count
        first, second = (budget_arm(circuit, 16, f"random_{n}") for n in (1, 2))
        assert first.neurons != second.neurons

    def test_top_is_the_highest_of_the_model_and_uniform_is_even(self, tiny_model: Any) -> None:
        circuit = random_circuit(tiny_model("llama"))
        top = at_budget(circuit, 12, "top")
        for e, emotion in enumerate(circuit.emotions):
            told = sorted((u.score for u in top.neurons[emotion]), reverse=True)
            best = sorted(circuit.neuron_scores[e].flatten().tolist(), reverse=True)
            assert told == pytest.approx(best[: len(told)])
        even = at_budget(circuit, 30, "uniform").allocation[..., 1]
        assert int(even.max() - even.min()) <= 1

    def test_the_circuit_is_split_by_its_influence(self, tiny_model: Any) -> None:
        circuit = random_circuit(tiny_model("llama"))
        by = at_budget(with_influence(circuit), 24).allocation[..., 1]
        assert bool((by[:, 1] > by[:, 0]).all()) and bool((by[:, 1] > by[:, 2]).all())

    def test_what_cannot_be_made(self, tiny_model: Any) -> None:
        circuit = random_circuit(tiny_model("llama"))
        with pytest.raises(DataError, match="cannot be made of the model's"):
            at_budget(circuit, 5000)
        masks = circuit.masks()
        refined = circuit.with_delta(
            circuit.delta_neurons * masks[0], circuit.delta_heads * masks[1], how="refined"
        )
        with pytest.raises(DataError, match="have nothing to add"):
            at_budget(refined, 8)


def torch_equal(a: Any, b: Any) -> bool:
    return a.tolist() == b.tolist()


def with_influence(circuit: Circuit) -> Circuit:
    """Most of it in the second layer."""
    shape = (len(circuit.emotions), circuit.n_layers, 2)
    values = torch.full(shape, 0.01)
    values[:, 1] = 1.0
    profile = InfluenceProfile(
        circuit.emotions, {"late": values}, {"late": values * 0}, torch.ones(shape[1:]), {}
    )
    return replace(circuit, influence=profile)


class TestMeasured:
    """A whole measurement, on a random model that says nothing of feelings."""

    @pytest.fixture(scope="class")
    def parts(self, tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("run")
        model = tiny_model("llama", max_position_embeddings=1024)
        replies = load("replies").filter(role="direction", emotion=THREE)
        own = Corpus(
            "expression",
            "replies",
            tuple(replace(r, group=f"own:{r.group}") for r in replies.records[:12]),
        )
        save_corpus(own, folder / "expression.jsonl")
        context = RunContext(RunConfig(out=folder, model="tiny"))
        lexicon = load_judge("lexicon")
        context.__dict__.update(model=model, judge=lexicon, lexicon=lexicon, embed=letters)
        settings = EfficiencySettings(
            counts=(4, 8),
            choices=("circuit",),
            draws=1,
            strengths=(1.0,),
            n_events=2,
            tune_events=1,
            refine=RefineSettings(steps=1, groups_per_step=1, max_reply_tokens=4),
            mix=RefineMix(("own", "replies")),
            generation=GenerationSettings(max_new_tokens=4),
        )
        return folder, context, random_circuit(model), settings

    def test_cells_are_kept_and_the_curve_is_made_of_them(self, parts: Any, tmp_path: Path) -> None:
        folder, context, circuit, settings = parts
        curve = Efficiency(context, circuit, settings, folder / "efficiency").measure()
        assert curve.arms == ("circuit", "random_1") and curve.accuracy.shape == (2, 2, 6)
        assert len(set(zip(curve.events, curve.targets, strict=True))) == 6
        assert np.isfinite(curve.perplexity).all() and (curve.strengths == 1).all()
        files = {p: p.stat().st_mtime_ns for p in (folder / "efficiency").rglob("*.json")}
        assert len(files) == 1 + 4
        wider = replace(settings, counts=(4, 8, 12))
        more = Efficiency(context, circuit, wider, folder / "efficiency").measure()
        np.testing.assert_array_equal(more.perplexity[:, :2], curve.perplexity)
        again = {p: p.stat().st_mtime_ns for p in (folder / "efficiency").rglob("*.json")}
        assert files.items() <= again.items() and len(again) == 1 + 6
        curve.save(tmp_path / "curve.safetensors")
        back = EfficiencyCurve.load(tmp_path / "curve.safetensors")
        assert back.table_rows() == curve.table_rows() and back.area("circuit").arm == "circuit"
        write_parquet(tmp_path / "curve.parquet", curve.table_rows())
        assert pq.read_table(tmp_path / "curve.parquet").to_pylist() == curve.table_rows()

    def test_several_strengths_are_tuned(self, parts: Any) -> None:
        folder, context, circuit, settings = parts
        tuned = replace(settings, counts=(4,), strengths=(0.5, 1.0), max_perplexity_ratio=1e9)
        curve = Efficiency(context, circuit, tuned, folder / "efficiency").measure()
        assert ((curve.strengths > 0) & np.isfinite(curve.strengths)).all()

    def test_without_expressed_emotions(self, parts: Any, tmp_path: Path) -> None:
        _, context, circuit, settings = parts
        other = RunContext(RunConfig(out=tmp_path, model="tiny"))
        other.__dict__["model"] = context.model
        with pytest.raises(ArtefactError, match="affectlens express"):
            Efficiency(other, circuit, settings, tmp_path).measure()


def letters(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of letter counts."""
    counts = np.array([[text.count(c) + 1e-3 for c in "etaoinshrdlu"] for text in texts])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_settings_and_command_refuse_in_one_sentence(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"counts": (8, 4)}, "must rise"),
        ({"choices": ("best",)}, "choice of units"),
        ({"draws": 0}, "at least one draw"),
        ({"strengths": (0.0,)}, "above 0"),
        ({"n_events": 0}, "one event"),
    ]
    for bad, says in cases:
        with pytest.raises((DataError, UnknownNameError), match=says):
            EfficiencySettings(**bad)
    done = CliRunner().invoke(app, ["circuit", "efficiency", "--out", str(tmp_path)])
    assert done.exit_code == 1 and done.output.count("Error: ") == 1
    assert "There is no circuit" in " ".join(done.output.split())
