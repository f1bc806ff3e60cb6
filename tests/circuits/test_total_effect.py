"""Exact total effects against one pass each; texts side by side against plain rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.total_effect import total_effects
from affectlens.circuits.interventions import (
    Intervention,
    heads,
    intervening,
    neurons,
    replace,
    zero,
)
from affectlens.circuits.resuming import record
from affectlens.circuits.side_by_side import packed, prepare, row_runs
from affectlens.circuits.tasks import CarryOver
from affectlens.core.errors import DataError, UnknownNameError
from affectlens.core.places import WritePoint
from affectlens.models.loading import load_model
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.conftest import tiny_tokenizer

FAMILIES = ("llama", "gemma3", "gpt2", "gpt_neox", "olmo2", "opt")
"""Norms before and after, sums of two kinds, windows, learned places, two axes as one."""


def parts(model: Any) -> Any:
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    return task, unit_means(model, corpus(), EMOTIONS, position="mean:reply")


def by_hand(model: Any, task: Any, change: Intervention) -> float:
    centre = task.centre(model)
    clean = task.margins(model, ["fear"], centre)[:, 1]
    with intervening(model, [change]):
        return float((clean - task.margins(model, ["fear"], centre)[:, 1]).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_effects_are_those_of_one_pass_each(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    task, means = parts(model)
    by_head = total_effects(model, task, means, ["fear"], max_tokens=700)
    assert by_head.shape == (1, 3, 4) and bool(by_head.isfinite().all())
    at, where = heads(model, 1, [2])
    mean = means.mean("heads").mean(0)[1]
    wanted = by_hand(model, task, Intervention(at, replace(mean), where))
    assert float(by_head[0, 1, 2]) == pytest.approx(wanted, abs=1e-4)
    assert float(by_head.abs().max()) > 1e-3

    chosen = torch.zeros(3, model.anatomy.d_mlp, dtype=torch.bool)
    chosen[[0, 2], [5, 7]] = True
    by_neuron = total_effects(model, task, means, ["fear"], kind="neurons", units=chosen, by="zero")
    assert torch.equal(by_neuron[0].isfinite(), chosen)
    for layer, unit in ((0, 5), (2, 7)):
        at, where = neurons(model, layer, [unit])
        wanted = by_hand(model, task, Intervention(at, zero(), where))
        assert float(by_neuron[0, layer, unit]) == pytest.approx(wanted, abs=1e-4)

    whole = total_effects(model, task, means, ["fear"], kind="sublayers")
    every = torch.ones(1, 1, model.anatomy.width("z"), dtype=torch.bool)
    all_heads = Intervention(
        WritePoint(2, "o_proj_in"), replace(means.mean("heads").mean(0)[2]), every
    )
    assert float(whole[0, 2, 0]) == pytest.approx(by_hand(model, task, all_heads), abs=1e-4)


def test_mixtures_have_heads_and_sublayers() -> None:
    from tests.mixtures import mixture_hf

    model = load_model(mixture_hf("qwen3_moe"), tokenizer=tiny_tokenizer())
    task, means = parts(model)
    by_head = total_effects(model, task, means, ["fear"])
    at, where = heads(model, 1, [2])
    mean = means.mean("heads").mean(0)[1]
    wanted = by_hand(model, task, Intervention(at, replace(mean), where))
    assert float(by_head[0, 1, 2]) == pytest.approx(wanted, abs=1e-4)
    whole = total_effects(model, task, means, ["fear"], kind="sublayers")
    out = means.mean("out").mean(0)[1, 1]
    mixture = Intervention(WritePoint(1, "down_proj_out"), replace(out))
    assert float(whole[0, 1, 1]) == pytest.approx(by_hand(model, task, mixture), abs=1e-4)
    with pytest.raises(DataError, match="no neurons to take out"):
        total_effects(model, task, means, ["fear"], kind="neurons")


def test_packed_texts_are_rows_of_their_own(tiny_model: Any) -> None:
    """Where the family lets it; sliding windows of 8 do not."""
    for family, packs in (("llama", True), ("gpt2", True), ("gemma3", False)):
        model = tiny_model(family)
        task, _ = parts(model)
        texts = task.texts("anger")
        ready = prepare(model, task, "anger", texts)
        assert (len(ready[0]) == 1 and ready[0][0].rows == 1) == packs
        offset = task.centre(model)[:, 0]
        wanted = task.margins(model)[:, 0] + offset
        with torch.no_grad():
            found = [sum(float(run()) for run in runs) for runs in ready]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
        with torch.no_grad():
            rows = sum(float(run(3)[2]) for run in row_runs(model, texts[0]))
        assert rows == pytest.approx(wanted[0], abs=1e-4)
        if packs:
            assert packed(model, texts[0]).tokens < sum(len(c) + len(t) for _, (c, t) in texts[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_goes_on_is_the_whole_pass(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    task, _ = parts(model)
    ((runs, *_), *_) = prepare(model, task, "anger", task.texts("anger")[:1])
    kept = record(model, runs)
    for layer in range(3):
        with torch.no_grad(), kept.before(layer, 2):
            values = runs(2)
        assert values.tolist() == pytest.approx([kept.value] * 2, abs=1e-5)
    with torch.no_grad():
        assert float(runs()) == pytest.approx(kept.value, abs=1e-6)


def test_bad_input_is_one_sentence(tiny_model: Any) -> None:
    model = tiny_model("llama")
    task, means = parts(model)
    with pytest.raises(DataError, match="no heads to take out"):
        total_effects(model, task, means, ["fear"], units=torch.zeros(3, 4, dtype=torch.bool))
    with pytest.raises(DataError, match=r"\[3, 5\], the model has \[3, 4\]"):
        total_effects(model, task, means, ["fear"], units=torch.ones(3, 5, dtype=torch.bool))
    with pytest.raises(UnknownNameError, match="kind of unit"):
        total_effects(model, task, means, ["fear"], kind="edges")
    with pytest.raises(UnknownNameError, match="replacement"):
        total_effects(model, task, means, ["fear"], by="noise")
