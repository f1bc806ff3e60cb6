"""Enhancement, identity and the untrained model, by plain hooks and on planted data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence import (
    AblationSettings,
    Confusion,
    EnhancementCurve,
    EnhancementSettings,
    IdentitySettings,
    ablate,
    enhance,
    identity,
    tone_samples,
    transplanted,
    untrained,
)
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
    return model, task, random_circuit(model), means


def scores_with(parts: Any, units: dict[str, Any], emotion: int) -> Any:
    """Scores of all sentence pairs, some units at their mean in a tone, at every token."""
    model, task, _, means = parts
    handles = []
    for part in model.anatomy.blocks:
        for kind, module in (("neurons", part.down_proj), ("heads", part.o_proj)):
            set_here = torch.zeros(part.d_mlp if kind == "neurons" else part.n_heads).bool()
            for unit in units.get(kind, ()):
                if unit.layer == part.layer:
                    set_here[unit.index] = True
            if kind == "heads":
                set_here = set_here.repeat_interleave(part.d_head)
            values = means.mean(kind)[emotion, part.layer]

            def swap(_: Any, args: Any, at: Tensor = set_here, values: Tensor = values) -> Any:
                return (torch.where(at, values, args[0]),)

            handles.append(module.register_forward_pre_hook(swap))
    scores = task.scores(model)
    for handle in handles:
        handle.remove()
    return scores


def margin(row: Any, told: int) -> float:
    return float(row[told] - np.delete(row, told).mean())


def test_rises_are_those_of_hooks_by_hand(parts: Any) -> None:
    model, task, circuit, means = parts
    settings = EnhancementSettings(counts=(2, 6), at="all", draws=2)
    found = enhance(model, task, circuit, means, settings)
    clean = task.scores(model)
    for units_of, test in (("fear", 1), ("fear", 2), ("anger", 1)):
        top = circuit.ranked(units_of, "neurons")[:6]
        after = scores_with(parts, {"neurons": top}, test)
        where = other_contexts(items_of(task), test)
        wanted = [
            margin(after[i, c], test) - margin(clean[i, c], test) for i, c in enumerate(where)
        ]
        mine = found.changes[EMOTIONS.index(units_of), 1, :, test]
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
        assert np.abs(wanted).max() > 1e-4
    assert np.isfinite(found.random_changes).all()


def test_choices_are_those_of_hooks_by_hand(parts: Any) -> None:
    model, task, circuit, means = parts
    found = identity(model, task, circuit, means, IdentitySettings(at="all", draws=2))
    clean, centre = task.scores(model), task.centre(model)
    units = {kind: circuit.units("happiness", kind) for kind in ("neurons", "heads")}
    after = scores_with(parts, units, 2)
    for i, c in enumerate(other_contexts(items_of(task), 2)):
        assert found.contexts[2, i] == c != 2
        for t in range(3):
            for mine, scores in ((found.before, clean), (found.after, after)):
                wanted = margin(scores[i, c], t) - centre[i, t]
                assert mine[2, i, t] == pytest.approx(wanted, abs=1e-5)
    assert np.abs(found.after - found.before).max() > 1e-3


def planted(says: str) -> Confusion:
    """60 texts; after, the model chooses the emotion, another tone, or the text's own still."""
    rng = np.random.default_rng(0)
    contexts = np.stack([np.resize([t for t in range(3) if t != e], 60) for e in range(3)])
    base = rng.normal(size=(3, 60, 3)) * 0.1
    np.put_along_axis(base, contexts[..., None], 2.0, axis=2)
    after = base.copy()
    for e in range(3):
        for i in range(60):
            third = 3 - e - contexts[e, i]
            if says != "nothing":
                after[e, i, e if says == "identity" else third] = 5.0
    random = np.repeat(base[:, None], 2, axis=1)
    return Confusion(
        EMOTIONS,
        EMOTIONS,
        tuple(f"s{i // 2}" for i in range(60)),
        contexts,
        base,
        after,
        random,
        Provenance("identity", parameters={"to": "mean"}),
    )


@pytest.mark.parametrize("says", ["identity", "salience", "nothing"])
def test_what_the_units_carry(says: str) -> None:
    found = planted(says)
    for one in found.results():
        assert one.carries == says and one.own_before == 1.0
        assert one.said == (1.0 if says == "identity" else 0.0)
    np.testing.assert_allclose(found.shares().sum(1), 1.0)
    np.testing.assert_allclose(np.diag(found.shares("before")), 0.0)
    assert found.shares()[0, 1] == {"identity": 0.0, "salience": 0.5, "nothing": 0.5}[says]


def test_a_tone_left_once_more_than_by_random_units_is_nothing() -> None:
    """One text of sixty is left: fewer than before and than with random units, and by chance."""
    found = planted("nothing")
    for e in range(3):
        found.after[e, 0, 3 - e - found.contexts[e, 0]] = 5.0
    for one in found.results():
        assert one.own < min(one.own_before, one.own_random) and one.p_left > 0.01
        assert one.carries == "nothing"
    assert all(one.p_left < 0.01 for one in planted("salience").results())


def test_files(parts: Any, tmp_path: Path) -> None:
    found = planted("identity")
    found.before[0, 3] = np.nan
    found.save(tmp_path / "c.safetensors")
    back = Confusion.load(tmp_path / "c.safetensors")
    assert back.table_rows() == found.table_rows() and "anger identity" in repr(back)
    model, task, circuit, means = parts
    settings = EnhancementSettings(counts=(2,), draws=2, to="patch")
    samples = tone_samples(model, corpus(), EMOTIONS, each=4)
    curve = enhance(model, task, circuit, means, settings, samples)
    curve.save(tmp_path / "e.safetensors")
    again = EnhancementCurve.load(tmp_path / "e.safetensors")
    assert again.table_rows() == curve.table_rows()


def test_an_untrained_model_has_the_shape_and_nothing_else(parts: Any) -> None:
    model, _, circuit, _ = parts
    state = torch.random.get_rng_state()
    fresh = untrained(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fresh.n_layers == model.n_layers and fresh.fingerprint != model.fingerprint
    assert untrained(model).fingerprint == fresh.fingerprint
    task = CarryOver.of(fresh, corpus(), EMOTIONS, named=True)
    assert np.nanmax(np.abs(task.margins(fresh))) < 0.05 * np.nanmax(
        np.abs(parts[1].margins(model))
    )
    means = unit_means(fresh, corpus(), EMOTIONS, position="mean:reply")
    there = transplanted(circuit, fresh)
    curve = ablate(fresh, task, there, means, AblationSettings(counts=(4,), draws=2))
    assert np.nanmax(np.abs(curve.changes)) < 0.01


def test_bad_input(parts: Any) -> None:
    model, task, circuit, means = parts
    for made, says in (
        (lambda: EnhancementSettings(to="zero"), "value to set units to"),
        (lambda: IdentitySettings(to="zero"), "value to set units to"),
        (lambda: IdentitySettings(kinds=("experts",)), "kind of unit"),
        (lambda: IdentitySettings(at="end"), "place of a replacement"),
    ):
        with pytest.raises(UnknownNameError, match=says):
            made()
    with pytest.raises(DataError, match="two draws"):
        IdentitySettings(draws=1)
    with pytest.raises(DataError, match="Patching needs values"):
        identity(model, task, circuit, means, IdentitySettings(to="patch"))
    samples = {"anger": {"neurons": torch.zeros(1, 3, 64), "heads": torch.zeros(1, 3, 32)}}
    with pytest.raises(DataError, match="no values at tokens of fear"):
        identity(model, task, circuit, means, IdentitySettings(to="patch"), samples)
