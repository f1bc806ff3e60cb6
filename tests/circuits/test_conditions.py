"""Many conditions in one pass against one plain pass per condition, text and continuation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.evidence.conditions import POINTS, Conditions, Replacement, _Whole
from affectlens.circuits.evidence.items import items_of
from affectlens.circuits.evidence.measure import margins_under, other_contexts
from affectlens.circuits.evidence.replacements import mean, resample, tone_samples, zero
from affectlens.circuits.tasks import CarryOver
from affectlens.core.errors import DataError
from tests.circuits.test_carry_over import EMOTIONS, corpus


@pytest.fixture(scope="module")
def parts(tiny_model: Any) -> Any:
    def get(family: str) -> Any:
        model = tiny_model(family)
        task = CarryOver.of(model, corpus(), EMOTIONS, named=True)
        return model, task, unit_means(model, corpus(), EMOTIONS, position="mean:reply")

    return get


def some_masks(model: Any, lowest: tuple[int, ...] = (0, 1, 2, 2)) -> dict[str, Tensor]:
    """Conditions whose first changed layer differs; the last changes nothing."""
    generator = torch.Generator().manual_seed(1)
    parts = model.anatomy.blocks
    neurons = torch.rand(5, model.n_layers, parts[0].d_mlp, generator=generator) < 0.2
    heads = torch.rand(5, model.n_layers, parts[0].n_heads, generator=generator) < 0.4
    for n, layer in enumerate(lowest):
        neurons[n, :layer] = False
        heads[n, :layer] = False
    neurons[4] = heads[4] = False
    return {"neurons": neurons, "heads": heads}


def plainly(model: Any, row: Any, masks: Any, n: int, put: Replacement, start: int) -> float:
    """Mean log-probability by one pass of the Hugging Face model with hooks of its own."""
    handles = []
    before, told = row
    for kind in POINTS:
        for layer, part in enumerate(model.anatomy.blocks):
            units = masks[kind][n, layer]
            wide = units.repeat_interleave(part.d_head) if kind == "heads" else units
            values = put.values[kind][0, layer, : len(wide)]

            def swap(_: Any, args: Any, wide: Tensor = wide, values: Tensor = values) -> Any:
                value = args[0].clone()
                shape = value.shape
                value = value.reshape(-1, shape[-1])  # OPT makes one axis of batch and position
                value[start:, wide] = values[wide]
                return (value.reshape(shape), *args[1:])

            module = part.o_proj if kind == "heads" else part.down_proj
            handles.append(module.register_forward_pre_hook(swap))
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([[*before, *told]])).logits[0].double()
    for handle in handles:
        handle.remove()
    at = torch.arange(len(before) - 1, len(before) + len(told) - 1)
    return float(logits.log_softmax(-1)[at, list(told)].mean())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_as_one_pass_each(parts: Any, family: str, everywhere: bool) -> None:
    model, task, means = parts(family)
    items = items_of(task)
    put, masks = mean(means), some_masks(model)
    conditions = Conditions.ready(model, put, items, everywhere)
    assert conditions.replay is (family != "opt")
    (question,) = items[1].questions
    found = conditions.log_probs(1, question, 2, masks)
    before, start = question.contexts[2], 0 if everywhere else question.start
    assert before is not None and 8 < question.start < len(before)
    for n in range(5):
        for t, told in enumerate(question.told):
            wanted = plainly(model, (before, told), masks, n, put, start)
            assert found[n, t] == pytest.approx(wanted, abs=2e-5)
    assert np.abs(found[:4] - found[4]).max() > 1e-3
    again = replace(conditions, replay=False, tokens=100).log_probs(1, question, 2, masks)
    np.testing.assert_allclose(again, found, atol=2e-5)
    for together in (True, False):  # models that bear no cache, or no padding
        whole = _Whole(conditions, 1, before, question.told, start, together)
        with torch.no_grad():
            np.testing.assert_allclose(whole.run(masks, 0).numpy(), found, atol=2e-5)


def test_margins_are_those_of_the_task(parts: Any) -> None:
    model, task, means = parts("llama")
    items = items_of(task)
    conditions = Conditions.ready(model, zero(means), items)
    nothing = {"heads": torch.zeros(1, model.n_layers, 4, dtype=torch.bool)}
    centre = task.centre(model)
    own = task.margins(model, None, centre) + centre
    for c in range(3):
        found = margins_under(conditions, items, [c, c, None], nothing)
        np.testing.assert_allclose(found[0, :2, c], own[:2, c], atol=1e-5)
        assert np.isnan(found[0, 2]).all()
    wanted = np.array([[True], [False], [False]])
    part = margins_under(conditions, items, [0, 0, 0], nothing, wanted=wanted)
    assert np.isfinite(part[0, 0]).all() and np.isnan(part[0, 1:]).all()


def test_contexts_in_another_tone_take_turns(parts: Any) -> None:
    _, task, _ = parts("llama")
    items = items_of(task)
    for emotion in range(3):
        found = other_contexts(items, emotion)
        assert emotion not in found and len(set(found)) == 2


def test_resampled_values_are_those_of_other_tones(parts: Any) -> None:
    model, _, _ = parts("llama")
    samples = tone_samples(model, corpus(), EMOTIONS, each=6)
    assert {name: len(v["neurons"]) for name, v in samples.items()} == dict.fromkeys(EMOTIONS, 6)
    put = resample(samples, "fear", seed=3)
    pool = torch.cat([samples["anger"]["neurons"], samples["happiness"]["neurons"]])
    rows = put.at("neurons", 1, 0, range(40))[0]
    drawn = [(pool[:, 1] == row).all(-1).nonzero().flatten().tolist() for row in rows]
    assert all(len(one) == 1 for one in drawn) and len({one[0] for one in drawn}) > 6
    # The same token in all layers and both kinds, and from wherever the pass begins.
    other = torch.cat([samples["anger"]["heads"], samples["happiness"]["heads"]])
    assert torch.equal(put.at("heads", 2, 0, range(40))[0], other[[one[0] for one in drawn], 2])
    assert torch.equal(put.at("neurons", 1, 0, range(10, 20))[0], rows[10:20])
    assert not torch.equal(put.at("neurons", 1, 1, range(40))[0], rows)
    text = model.tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in corpus().records[0].messages],
        tokenize=False,
    )
    seen: list[Tensor] = []
    handle = model.anatomy.blocks[1].down_proj.register_forward_pre_hook(
        lambda _m, args: seen.append(args[0][0])
    )
    with torch.no_grad():
        for record in corpus().records:
            if record.emotion == "anger":
                chat = [{"role": m.role, "content": m.content} for m in record.messages]
                text = model.tokenizer.apply_chat_template(chat, tokenize=False)
                ids = model.tokenizer(text, add_special_tokens=False).input_ids
                model.hf(input_ids=torch.tensor([ids]))
    handle.remove()
    every = torch.cat(seen)
    for row in samples["anger"]["neurons"][:, 1]:
        assert float((every - row).abs().max(1).values.min()) < 1e-5
    with pytest.raises(DataError, match="no reply in disgust"):
        tone_samples(model, corpus(), ("disgust",))
    with pytest.raises(DataError, match="two emotions"):
        resample({"fear": samples["fear"]}, "fear")
