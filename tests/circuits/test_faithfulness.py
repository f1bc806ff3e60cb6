"""Faithfulness against hooks by hand, its ends, its areas, and its statistics on planted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence import FaithfulnessCurve, FaithfulnessSettings, faithfulness
from affectlens.circuits.evidence.faithfulness_curve import area
from affectlens.circuits.evidence.items import items_of
from affectlens.circuits.evidence.measure import other_contexts
from affectlens.circuits.tasks import CarryOver
from affectlens.core import Provenance
from affectlens.core.errors import DataError, UnknownNameError
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


@pytest.fixture(scope="module")
def parts(tiny_model: Any) -> Any:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    settings = FaithfulnessSettings(shares=(5, 100), at="all", draws=2)
    circuit = random_circuit(model)
    return model, task, circuit, means, faithfulness(model, task, circuit, means, settings)


def by_hand(parts: Any, left: dict[str, Tensor], emotion: int) -> Any:
    """Own margin less that in another tone's context, all but some units at their means."""
    model, task, _, means, _ = parts
    handles = []
    for part in model.anatomy.blocks:
        for kind, module in (("neurons", part.down_proj), ("heads", part.o_proj)):
            kept = left[kind][part.layer]
            kept = kept.repeat_interleave(part.d_head) if kind == "heads" else kept
            values = means.mean(kind).mean(0)[part.layer]

            def swap(_: Any, args: Any, kept: Tensor = kept, values: Tensor = values) -> Any:
                return (torch.where(kept, args[0], values),)

            handles.append(module.register_forward_pre_hook(swap))
    scores = task.scores(model)
    for handle in handles:
        handle.remove()
    found = []
    for i, other in enumerate(other_contexts(items_of(task), emotion)):
        one = scores[i, emotion] - scores[i, other]
        found.append(one[emotion] - np.delete(one, emotion).mean())
    return np.array(found)


def test_margins_are_those_of_hooks_by_hand(parts: Any) -> None:
    model, _, circuit, _, found = parts
    shape = {"neurons": circuit.neuron_scores[1].shape, "heads": circuit.head_scores[1].shape}
    every = {kind: torch.ones(size, dtype=torch.bool) for kind, size in shape.items()}
    none = {kind: ~mask for kind, mask in every.items()}
    own = {kind: none[kind].clone() for kind in none}
    for kind, mask in own.items():
        for unit in circuit.units("fear", kind):
            mask[unit.layer, unit.index] = True
    top = {kind: none[kind].clone() for kind in none}
    for kind, scores in (("neurons", circuit.neuron_scores), ("heads", circuit.head_scores)):
        count = int(np.ceil(scores[1].numel() * 0.05))
        top[kind].view(-1)[scores[1].flatten().topk(count).indices] = True
    rest = {kind: ~mask for kind, mask in own.items()}
    for mine, left in (
        (found.whole[1], every),
        (found.empty[1], none),
        (found.circuit[1], own),
        (found.without[1], rest),
        (found.left[1, 0], top),
    ):
        np.testing.assert_allclose(mine, by_hand(parts, left, 1), atol=1e-5)
    assert len({float(x) for x in (found.circuit[1, 0], found.without[1, 0])}) == 2
    assert model.n_layers == 3


def test_the_whole_model_is_1_and_nothing_is_0(parts: Any) -> None:
    found = parts[-1]
    np.testing.assert_allclose(found.left[:, 1], found.whole, atol=1e-6)
    nothing = FaithfulnessCurve(**{**vars(found), "circuit": found.empty})
    better = found.whole.mean(1) > found.empty.mean(1)
    assert better.any()
    for there, one, none in zip(better, found.results(), nothing.results(), strict=True):
        assert one.f[-1] == pytest.approx(1.0 if there else np.nan, nan_ok=True)
        assert none.circuit == pytest.approx(0.0 if there else np.nan, nan_ok=True)


def test_areas() -> None:
    """CPR of a curve that is 1 from a share on; overshoot raises it and CMD too."""
    assert area((50, 100), np.array([1.0, 1.0])) == pytest.approx(0.75)
    over = np.array([2.0, 1.0])
    assert area((50, 100), over) == pytest.approx(1.25)
    assert area((50, 100), np.abs(1 - over), at_zero=1.0) == pytest.approx(0.75)
    assert area((50,), np.array([1.0])) == pytest.approx(0.75)


def planted(circuit: float, random: float, seed: int = 0) -> FaithfulnessCurve:
    """Three emotions, 40 texts; the model's margin is 4 and nothing's 0, noise 1."""
    rng = np.random.default_rng(seed)

    def noise(*shape: int) -> Any:
        return rng.normal(size=(3, *shape, 40))

    return FaithfulnessCurve(
        emotions=EMOTIONS,
        shares=(1.0, 100.0),
        scenarios=tuple(f"s{i // 2}" for i in range(40)),
        whole=noise() * 0.1 + 4,
        empty=noise() * 0.1,
        circuit=noise() + 4 * circuit,
        without=noise(),
        left=noise(2),
        random_circuits=noise(5) + 4 * random,
        random_left=noise(2, 5),
        provenance=Provenance("faithfulness", parameters={"by": "mean", "task": "carry_over"}),
    )


class TestVerdict:
    def test_sufficient_only_if_much_is_left_and_more_than_of_random_units(self) -> None:
        for kept, random, says in (
            (0.8, 0.1, "passed"),
            (0.3, 0.1, "failed"),
            (0.8, 0.8, "failed"),
        ):
            words = planted(kept, random).findings()
            for emotion in EMOTIONS:
                assert words[emotion]["sufficient"].outcome == says
                assert words[emotion]["sufficient"].number == pytest.approx(kept, abs=0.1)

    def test_under_the_null_it_seldom_differs(self) -> None:
        p = [one.difference.p for s in range(40) for one in planted(0.3, 0.3, s).results()]
        assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.13

    def test_nothing_to_keep_is_untested(self) -> None:
        """If the model does no better than with all ablated, a share of that is no number."""
        curve = planted(0.8, 0.1)
        turned = FaithfulnessCurve(**{**vars(curve), "whole": curve.empty, "empty": curve.whole})
        for one in turned.results():
            assert np.isnan(one.circuit) and not one.sufficient
        found = turned.findings()["fear"]["sufficient"]
        assert found.outcome == "untested" and found.number is None
        assert "not above" in found.what

    def test_intervals_of_the_ratio_hold_the_truth_as_often_as_they_say(self) -> None:
        """Also where the model's own margin is uncertain: whole 1, circuit .6, 12 scenarios."""
        rng, inside = np.random.default_rng(0), 0
        base = planted(0.6, 0.1)
        for _ in range(60):
            both = rng.normal(size=(3, 40)) * 0.8
            whole, circuit = both + 1, 0.6 * both + 0.6 + rng.normal(size=(3, 40)) * 0.2
            made = {**vars(base), "whole": whole, "circuit": circuit, "empty": whole * 0}
            made["scenarios"] = tuple(f"s{i // 2}" for i in range(40))
            for one in FaithfulnessCurve(**made).results():
                inside += one.interval[0] <= 0.6 <= one.interval[1]
        assert 0.88 <= inside / 180 <= 0.98


def test_written_and_read(tmp_path: Path) -> None:
    curve = planted(0.5, 0.2)
    curve.whole[0, 3] = np.nan
    curve.save(tmp_path / "f.safetensors")
    back = FaithfulnessCurve.load(tmp_path / "f.safetensors")
    assert back.to_pandas().equals(curve.to_pandas()) and np.isnan(back.whole[0, 3])


def test_settings() -> None:
    for given, says in (
        ({"kinds": ("experts",)}, "kind of unit"),
        ({"by": "zero"}, "replacement"),
        ({"at": "end"}, "place of a replacement"),
    ):
        with pytest.raises(UnknownNameError, match=says):
            FaithfulnessSettings(**given)
    for given, says in (
        ({"shares": (2, 1)}, "must rise"),
        ({"shares": (0, 1)}, "above 0"),
        ({"draws": 1}, "two draws"),
    ):
        with pytest.raises(DataError, match=says):
            FaithfulnessSettings(**given)
