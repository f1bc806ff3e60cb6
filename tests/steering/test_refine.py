"""Refinement against a plain computation of its loss, and what it must leave alone."""

from __future__ import annotations

import math
import random

import pytest
import torch

from affectlens.core import DataError, ModelError, Site, UnknownNameError
from affectlens.core.artefact import Provenance
from affectlens.core.places import WritePoint
from affectlens.datasets import Corpus, Message, Record
from affectlens.geometry.directions import Directions
from affectlens.steering import refine
from affectlens.steering.refine import RefineSettings
from affectlens.steering.refine.log_probabilities import Additions
from affectlens.steering.refine.objectives import OBJECTIVES
from affectlens.steering.refine.replies import complete_groups
from tests.conftest import FAMILIES

EMOTIONS = ("anger", "fear")
TEXTS = {"anger": "so angry", "fear": "I am afraid of it, really"}


def corpus(n: int = 3) -> Corpus:
    records = [
        Record(
            id=f"s{i}:{e}",
            messages=(Message("user", "the train " * (i + 1)), Message("assistant", TEXTS[e])),
            emotion=e,
            valence=None,
            group=f"s{i}",
            theme="x",
            split="fit",
        )
        for i in range(n)
        for e in EMOTIONS
    ]
    return Corpus("toy", "replies", tuple(records))


def toy_directions(model, layers: tuple[int, ...] = (0, 1, 2)) -> Directions:
    torch.manual_seed(0)
    vectors = torch.randn(len(layers), 2, model.d_model)
    norms = vectors.norm(dim=-1)
    return Directions(
        EMOTIONS,
        tuple(Site(n, "resid_post") for n in layers),
        vectors / norms[..., None],
        norms,
        "group_centred",
        torch.ones(len(layers), 2),
        Provenance("directions", model=model.fingerprint),
    )


def lowered(model, groups, added: Additions, settings: RefineSettings) -> torch.Tensor:
    loss = OBJECTIVES[settings.objective].loss
    return loss(model, groups, added, settings, random.Random(settings.seed))


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_equals_one_row_at_a_time_without_cache(family: str, tiny_model) -> None:
    """The shared prompt, left padding and cached keys must not change a single reply's loss."""
    from affectlens.models.chat.chats import encode
    from affectlens.models.hooking.hooks import writing

    model = tiny_model(family)
    settings = RefineSettings(max_reply_tokens=6)
    groups = complete_groups(corpus(), EMOTIONS)[:2]
    vectors = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(1))
    added = {WritePoint(1, "resid_post"): vectors}
    fast = lowered(model, groups, added, settings)

    total, count = 0.0, 0
    for group in groups:
        for e, record in enumerate(group):
            row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
            start, end = row.spans["reply"]
            end = min(end, start + 6)

            def steer(hidden, start=start, e=e):
                hidden = hidden.clone()
                hidden[:, start - 1 :] += vectors[e]
                return hidden

            with torch.no_grad(), writing(model.anatomy, {WritePoint(1, "resid_post"): steer}):
                logits = model.hf(input_ids=torch.tensor([row.ids[:end]])).logits[0]
            logp = logits.log_softmax(-1)
            for t in range(end - start):
                weight = 1 + 3 * math.exp(-t / 6)
                total -= weight * float(logp[start + t - 1, row.ids[start + t]])
                count += 1
    assert float(fast) == pytest.approx(total / count, rel=2e-4)


def test_descent_lowers_the_loss_and_leaves_the_model_alone(tiny_model, tmp_path) -> None:
    model = tiny_model("llama")
    before = {n: p.detach().clone() for n, p in model.hf.named_parameters()}
    flags = [p.requires_grad for p in model.hf.parameters()]
    start = toy_directions(model)
    settings = RefineSettings(steps=25, learning_rate=0.2)
    found = refine.refine_directions(model, start, corpus(), layers=(0, 2), settings=settings)
    assert found.split_half is None  # that of the start would say nothing about these
    found.save(tmp_path / "refined.safetensors")
    assert type(found).load(tmp_path / "refined.safetensors").split_half is None
    assert [s.layer for s in found.sites] == [0, 2]
    torch.testing.assert_close(found.vectors.norm(dim=-1), torch.ones(2, 2))
    assert all(torch.equal(p, before[n]) for n, p in model.hf.named_parameters())
    assert [p.requires_grad for p in model.hf.parameters()] == flags
    assert found.provenance.fingerprint != start.provenance.fingerprint

    def loss(d: Directions, index: list[int]) -> float:
        c = d.centroid()[index]
        added = {WritePoint(n, "resid_post"): c[i] for i, n in enumerate((0, 2))}
        with torch.no_grad():
            groups = complete_groups(corpus(), EMOTIONS)
            return float(lowered(model, groups, added, settings))

    assert loss(found, [0, 1]) < 0.8 * loss(start, [0, 2])


def test_same_seed_same_vectors(tiny_model) -> None:
    model = tiny_model("llama")
    settings = RefineSettings(steps=3)
    runs = [
        refine.refine_directions(
            model, toy_directions(model), corpus(), layers=(1,), settings=settings
        ).centroid()
        for _ in range(2)
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)


def test_circuit_is_refined_inside_its_units(tiny_model) -> None:
    from affectlens.circuits import find_circuit

    model = tiny_model("llama")
    circuit = find_circuit(
        model,
        corpus(),
        toy_directions(model),
        split=None,
        prompts=[(5, 6, 7, 8)],
    )
    better = refine.refine_circuit(model, circuit, corpus(), settings=RefineSettings(steps=5))
    neurons, heads = circuit.masks()
    assert not bool(better.delta_neurons[~neurons].any())
    assert not bool(better.delta_heads[~heads].any())
    assert better.neurons == circuit.neurons and better.heads == circuit.heads
    assert not torch.equal(better.folded(model)[1], circuit.folded(model)[1])
    assert better.delta_source.startswith("refined")


def test_refuses_what_cannot_work(tiny_model) -> None:
    model = tiny_model("llama")
    lonely = corpus().filter(emotion="anger")
    with pytest.raises(DataError, match="no group"):
        refine.refine_directions(model, toy_directions(model), lonely, layers=(1,))
    with pytest.raises(DataError, match="learning_rate"):
        RefineSettings(learning_rate=float("nan"))
    wild = RefineSettings(steps=3, start=1e38)
    with pytest.raises(ModelError, match="diverged"):
        refine.refine_directions(model, toy_directions(model), corpus(), layers=(0,), settings=wild)


def log_probability(model, record: Record, change, most: int) -> tuple[float, int]:
    """Of a whole reply, in one plain pass, changed from the last prompt token on."""
    from affectlens.models.chat.chats import encode
    from affectlens.models.hooking.hooks import writing

    row = encode(model.tokenizer, record.chat, add_generation_prompt=False)
    start, end = row.spans["reply"]
    end = min(end, start + most)

    def write(hidden):
        hidden = hidden.clone()
        hidden[:, start - 1 :] = change(hidden[:, start - 1 :])
        return hidden

    with torch.no_grad(), writing(model.anatomy, {WritePoint(1, "resid_post"): write}):
        logits = model.hf(input_ids=torch.tensor([row.ids[:end]])).logits[0].double()
    said = logits.log_softmax(-1)
    return sum(float(said[t - 1, row.ids[t]]) for t in range(start, end)), end - start


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_reps_is_its_formula_on_single_plain_passes(family: str, tiny_model) -> None:
    model = tiny_model(family)
    settings = RefineSettings(max_reply_tokens=6, objective="reps", strengths=(0.7,))
    groups = complete_groups(corpus(), EMOTIONS)[:2]
    vectors = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(1))
    found = lowered(model, groups, {WritePoint(1, "resid_post"): vectors}, settings)

    losses = []
    for group in groups:
        for e, c in enumerate(group):
            r, v = group[1 - e], vectors[e]
            unit = v / v.norm()

            def steered(h, v=v):
                return h + 0.7 * v

            def erased(h, unit=unit):
                return h - (h @ unit).relu()[..., None] * unit

            (pc, n), (pr, m) = (log_probability(model, x, lambda h: h, 6) for x in (c, r))
            (sc, _), (sr, _) = (log_probability(model, x, steered, 6) for x in (c, r))
            (ec, _), (er, _) = (log_probability(model, x, erased, 6) for x in (c, r))
            towards = max(pr - pc, 1) * sc / n - sr / m
            away = max(pc - pr, 1) * er / m - ec / n
            losses.append(math.log1p(math.exp(-towards)) + math.log1p(math.exp(-away)))
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=2e-4)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_slopes_of_objectives_are_finite_differences(objective: str, tiny_model) -> None:
    model = tiny_model("llama")
    settings = RefineSettings(max_reply_tokens=6, objective=objective)
    groups = complete_groups(corpus(), EMOTIONS)[:2]
    generator = torch.Generator().manual_seed(2)
    free = torch.randn(2, model.d_model, generator=generator).requires_grad_(True)
    place = WritePoint(1, "resid_post")
    lowered(model, groups, {place: free}, settings).backward()
    slope = free.grad
    assert slope is not None and bool((slope.norm(dim=1) > 0).all())  # of every emotion
    step = 0.02 * slope / slope.norm()
    with torch.no_grad():
        up, down = (
            float(lowered(model, groups, {place: free + sign * step}, settings)) for sign in (1, -1)
        )
    assert (up - down) / 0.04 == pytest.approx(float(slope.norm()), rel=0.03)


def test_reps_prefers_each_reply_when_steered_towards_it(tiny_model) -> None:
    model = tiny_model("llama")
    settings = RefineSettings(steps=25, learning_rate=0.2, objective="reps")
    start = toy_directions(model, (1,))
    found = refine.refine_directions(model, start, corpus(), layers=(1,), settings=settings)
    assert found.provenance.parameters["refined"]["objective"] == "reps"
    group = complete_groups(corpus(), EMOTIONS)[0]
    for e, own in enumerate(group):
        ahead = []
        for vectors in (start.centroid()[0], found.centroid()[0]):
            (said, n), (other, m) = (
                log_probability(model, x, lambda h, v=vectors[e]: h + v, 24)
                for x in (own, group[1 - e])
            )
            ahead.append(said / n - other / m)
        assert ahead[1] > ahead[0] + 0.3


def test_objectives_that_cannot_be_had(tiny_model) -> None:
    model = tiny_model("llama")
    with pytest.raises(UnknownNameError, match=r"objective 'repz'.*reps"):
        settings = RefineSettings(objective="repz")
        refine.refine_directions(
            model, toy_directions(model), corpus(), layers=(1,), settings=settings
        )
    with pytest.raises(DataError, match="strengths"):
        RefineSettings(strengths=())
    single = complete_groups(corpus().filter(emotion="anger"), ("anger",))
    with pytest.raises(DataError, match="two emotions"):
        lowered(model, single, {}, RefineSettings(objective="reps"))
