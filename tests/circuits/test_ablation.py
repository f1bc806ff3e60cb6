"""The evidence of ablations: by brute force on a tiny model, and its statistics on planted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence import AblationCurve, AblationSettings, ablate
from affectlens.circuits.evidence.draws import Places, highest, matched
from affectlens.circuits.tasks import CarryOver, margins
from affectlens.core import Provenance
from affectlens.core.errors import ArtefactError, DataError, MismatchError, UnknownNameError
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_circuit import random_circuit


@pytest.fixture(scope="module")
def parts(tiny_model: Any) -> Any:
    model = tiny_model("llama")
    task = CarryOver.of(model, corpus(), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    return model, task, random_circuit(model), means


@pytest.mark.parametrize("kind", ["neurons", "heads"])
@pytest.mark.parametrize("by", ["mean", "zero"])
def test_falls_are_those_of_hooks_by_hand(parts: Any, kind: str, by: str) -> None:
    model, task, circuit, means = parts
    settings = AblationSettings(kind=kind, counts=(1, 4), by=by, at="all", draws=2)
    found = ablate(model, task, circuit, means, settings)
    clean = task.scores(model)
    values = means.mean(kind).mean(0)
    size = values.shape[1] // 4 if kind == "heads" else 1
    top = sorted(circuit.units("fear", kind), key=lambda u: -u.score)[:4]
    removed = []
    for unit in top:
        part = model.anatomy.blocks[unit.layer]
        own = slice(unit.index * size, (unit.index + 1) * size)
        new = torch.zeros(size) if by == "zero" else values[unit.layer, own]

        def before(_: Any, args: Any, own: slice = own, new: Tensor = new) -> Any:
            value = args[0].clone()
            value[..., own] = new
            return (value,)

        module = part.down_proj if kind == "neurons" else part.o_proj
        removed.append(module.register_forward_pre_hook(before))
    wanted = margins(clean) - margins(task.scores(model), clean)
    for handle in removed:
        handle.remove()
    np.testing.assert_allclose(found.changes[1, 1], wanted, atol=5e-6)
    assert np.abs(wanted).max() > 1e-4
    np.testing.assert_allclose(found.margins, margins(clean), atol=1e-7)
    assert np.isfinite(found.random_changes).all()


def test_a_circuit_with_most_of_a_layer_shares_units_with_random_sets() -> None:
    """All that are outside, then some of its own: as few as there must be."""
    own = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    there = torch.tensor([[True] * 5, [True, True, True, True, False]])
    places = Places(own, there & ~own)
    drawn = matched(own[None], places, 40, seed=0)[0]
    assert drawn.sum(2).tolist() == [[3, 1]] * 40
    assert drawn[:, 0, 3:].all()  # both units outside
    assert not drawn[:, 1, 0].any() and not drawn[:, 1, 4].any()  # enough outside; one not there
    shared = drawn[:, 0, :3].int().sum(0)
    assert shared.sum() == 40 and (shared > 0).all()


def test_random_units_are_others_of_the_same_layers(parts: Any) -> None:
    _, _, circuit, _ = parts
    sets = highest(circuit, "anger", "neurons", (3, 9))
    drawn = matched(sets, Places.of(circuit, "anger", "neurons"), 5, seed=0)
    chosen = {(u.layer, u.index) for u in circuit.units("anger", "neurons")}
    ranked = [(u.layer, u.index) for u in circuit.ranked("anger", "neurons")]
    seen = set[Any]()
    for k, count in enumerate((3, 9)):
        assert set(map(tuple, sets[k].nonzero().tolist())) == set(ranked[:count])
        for draw in drawn[k]:
            assert draw.sum(1).tolist() == sets[k].sum(1).tolist()
            units = frozenset(map(tuple, draw.nonzero().tolist()))
            assert not units & chosen
            seen.add(units)
    assert len(seen) == 10


def test_texts_may_share_out_the_draws_and_the_other_emotions(parts: Any) -> None:
    model, task, circuit, means = parts
    whole = ablate(model, task, circuit, means, AblationSettings(counts=(2, 5), draws=4))
    settings = AblationSettings(counts=(2, 5), draws=4, per_text=3, others_per_text=1)
    found = ablate(model, task, circuit, means, settings)
    there = ~np.isnan(found.random_changes)
    assert (there.sum(axis=2) == 3).all() and there.any(axis=3).all()
    np.testing.assert_allclose(found.random_changes[there], whole.random_changes[there], atol=1e-6)
    there = ~np.isnan(found.changes)
    assert (there.sum(axis=0) == 2).all()  # a text's own units and one other emotion's
    np.testing.assert_allclose(found.changes[there], whole.changes[there], atol=1e-6)
    for e in range(3):
        np.testing.assert_allclose(found.changes[e, ..., e], whole.changes[e, ..., e], atol=1e-6)


def planted(own: float, others: float, random: float, *, texts: int = 40, seed: int = 0) -> Any:
    """A curve of known falls with noise of 1, of three emotions at one count."""
    rng = np.random.default_rng(seed)
    changes = rng.normal(size=(3, 1, texts, 3)) + others
    for e in range(3):
        changes[e, 0, :, e] += own - others
    noise = rng.normal(size=(3, 1, 20, texts))
    return AblationCurve(
        emotions=EMOTIONS,
        told=EMOTIONS,
        counts=(8,),
        scenarios=tuple(f"s{i // 2}" for i in range(texts)),
        margins=np.full((texts, 3), 5.0),
        changes=changes,
        random_changes=noise + random,
        provenance=Provenance("ablation", parameters={"kind": "neurons", "by": "mean"}),
    )


class TestVerdict:
    """What is said follows from what was planted."""

    def test_units_that_matter_to_their_own_emotion_alone(self) -> None:
        for effect in planted(own=3.0, others=0.0, random=0.2).effects():
            assert effect.beyond_random and effect.own
            assert effect.change == pytest.approx(3.0, abs=0.6)
            assert effect.share == pytest.approx(effect.change / 5.0)
        for words in planted(own=3.0, others=0.0, random=0.2).findings().values():
            assert str(words["necessary"]).startswith("passed (")
            assert set(words) == {"necessary", "specific"}

    def test_units_that_matter_to_every_emotion_alike(self) -> None:
        for effect in planted(own=3.0, others=3.0, random=0.2).effects():
            assert effect.beyond_random and not effect.own

    def test_units_no_better_than_random_ones(self) -> None:
        for effect in planted(own=3.0, others=0.0, random=2.0).effects():
            assert not effect.beyond_random
        for words in planted(own=3.0, others=0.0, random=2.0).findings().values():
            assert str(words["necessary"]).startswith("failed (")

    def test_under_the_null_it_seldom_passes(self) -> None:
        """p of own against random units: below .05 in about one of twenty, never piled up at 0."""
        p = [
            effect.difference.p
            for seed in range(60)
            for effect in planted(own=0.0, others=0.0, random=0.0, seed=seed).effects()
        ]
        assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.12
        assert 0.35 <= np.mean(np.array(p) < 0.5) <= 0.65

    def test_few_scenarios_decide_nothing(self) -> None:
        """Signs of five agree by chance once in sixteen times, whatever a bootstrap says."""
        few = planted(own=3.0, others=0.0, random=0.2, texts=10)
        for effect in few.effects():
            assert effect.p >= effect.difference.p >= 2.0**-4
        for words in few.findings().values():
            assert words["necessary"].outcome == "untested" and words["necessary"].number
        wrong = planted(own=-3.0, others=0.0, random=0.2, texts=10)
        assert {w["necessary"].outcome for w in wrong.findings().values()} == {"failed"}

    def test_no_text_in_which_others_were_changed(self) -> None:
        curve = planted(own=3.0, others=0.0, random=0.2)
        curve.changes[0, 0, :, 1:] = np.nan
        words = curve.findings()
        assert words["anger"]["necessary"].outcome == "passed"
        assert str(words["anger"]["specific"]).startswith("untested")
        assert words["anger"]["specific"].control is None
        assert words["fear"]["specific"].outcome == "passed"

    def test_texts_without_a_continuation_do_not_count(self) -> None:
        curve = planted(own=3.0, others=0.0, random=0.2)
        curve.changes[0, 0, :10, 0] = np.nan
        effect = curve.effects()[0]
        assert effect.change == pytest.approx(curve.changes[0, 0, 10:, 0].mean())
        assert effect.random == pytest.approx(curve.random_changes[0, 0, :, 10:].mean())


class TestFile:
    def test_written_and_read(self, tmp_path: Path) -> None:
        curve = planted(own=1.0, others=0.5, random=0.1)
        curve.changes[0, 0, :4, 0] = curve.random_changes[1, 0, 3] = np.nan
        curve.save(tmp_path / "curve.safetensors")
        back = AblationCurve.load(tmp_path / "curve.safetensors")
        assert back.table_rows() == curve.table_rows()
        assert back.provenance == curve.provenance
        assert repr(back).startswith("AblationCurve(emotions=3, counts=8-8 neurons")

    def test_cut_short(self, tmp_path: Path) -> None:
        path = tmp_path / "curve.safetensors"
        planted(own=1.0, others=0.5, random=0.1).save(path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ArtefactError, match=r"curve\.safetensors"):
            AblationCurve.load(path)


class TestBadInput:
    def test_settings(self) -> None:
        with pytest.raises(UnknownNameError, match="kind of unit"):
            AblationSettings(kind="experts")
        with pytest.raises(UnknownNameError, match="replacement"):
            AblationSettings(by="noise")
        with pytest.raises(DataError, match="must rise"):
            AblationSettings(counts=(4, 2))
        with pytest.raises(UnknownNameError, match="place of a replacement"):
            AblationSettings(at="end")
        with pytest.raises(DataError, match="per_text counts from 1"):
            AblationSettings(per_text=0)
        with pytest.raises(DataError, match="two draws"):
            AblationSettings(draws=1)

    def test_what_does_not_fit(self, parts: Any, tiny_model: Any) -> None:
        model, task, circuit, means = parts
        with pytest.raises(DataError, match=r"has \d+ neurons for anger, not 500"):
            ablate(model, task, circuit, means, AblationSettings(counts=(500,)))
        few = torch.tensor([[True, True, False], [False, False, False]])
        with pytest.raises(DataError, match="Layer 0 has only 2 units, too few to draw 3"):
            Places(few, torch.zeros_like(few)).drawn([3, 0], torch.Generator())
        with pytest.raises(MismatchError, match="made for model"):
            ablate(tiny_model("llama", 3), task, circuit, means)
        with pytest.raises(DataError, match="Resampling needs values"):
            ablate(model, task, circuit, means, AblationSettings(counts=(2,), by="resample"))
        small = CarryOver.of(model, corpus(), EMOTIONS[:2], named=True)
        with pytest.raises(DataError, match="no texts for happiness"):
            ablate(model, small, circuit, means)
