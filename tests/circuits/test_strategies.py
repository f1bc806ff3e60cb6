"""Every strategy gives the units that its own rule names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from affectlens.circuits import Budget, allocate, find_circuit
from affectlens.circuits.attribution.edge_scores import Sender
from affectlens.circuits.attribution.gradients import GradientSettings, gradient_scores
from affectlens.circuits.attribution.mean_pass import unit_means
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.attribution.total_effect import set_effects, total_effects
from affectlens.circuits.interventions import Intervention, intervening, neurons
from affectlens.circuits.interventions import replace as replaced
from affectlens.circuits.ranking import Search, find_by
from affectlens.circuits.ranking.by_validation import folds, often_highest
from affectlens.circuits.ranking.deltas import with_delta_by
from affectlens.circuits.tasks import CarryOver
from affectlens.circuits.written_tokens import written_tokens
from affectlens.core.errors import DataError, UnknownNameError
from tests.circuits.helpers import WORDS, random_directions
from tests.circuits.test_carry_over import EMOTIONS, corpus


@pytest.fixture(scope="module")
def search(tiny_model: Any) -> Search:
    model = tiny_model("llama")
    circuit = find_circuit(
        model, corpus(), random_directions(model), split=None, words=WORDS, prompts=[[5, 9, 7]]
    )
    task = CarryOver.of(model, corpus(2), EMOTIONS, named=True)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    return Search(model, circuit, task, means, neurons=9, heads=2)


def taken(circuit: Any, emotion: str, kind: str) -> set[tuple[int, int]]:
    return {(unit.layer, unit.index) for unit in circuit.units(emotion, kind)}


def highest(scores: torch.Tensor, count: int) -> set[tuple[int, int]]:
    top = scores.flatten().topk(count).indices.tolist()
    return {divmod(i, scores.shape[1]) for i in top}


@pytest.mark.parametrize("name", ["published", "consensus", "attribution_patching"])
def test_as_many_as_asked_of_every_emotion(search: Search, name: str) -> None:
    found = find_by(name, search)
    for emotion in EMOTIONS:
        assert len(found.units(emotion, "neurons")) == 9
        assert len(found.units(emotion, "heads")) == 2
    assert found.evidence is None
    assert torch.equal(found.delta_neurons, search.circuit.delta_neurons)
    if name != "published":
        assert found.provenance.fingerprint != search.circuit.provenance.fingerprint


def test_those_by_score_are_the_highest(search: Search) -> None:
    model, task, means = search.model, search.task, search.means
    plain = gradient_scores(model, task, Against(means), EMOTIONS)
    path = gradient_scores(model, task, Against(means), EMOTIONS, GradientSettings("activations"))
    wanted = {
        "direct": (search.circuit.neuron_scores, search.circuit.head_scores),
        "attribution_patching": (plain.neurons, plain.heads),
        "eap_ig": (path.neurons, path.heads),
    }
    for name, (by_neuron, by_head) in wanted.items():
        found = find_by(name, search)
        for e, emotion in enumerate(EMOTIONS):
            assert taken(found, emotion, "neurons") == highest(by_neuron[e], 9)
            assert taken(found, emotion, "heads") == highest(by_head[e], 2)
    exact = total_effects(model, task, means, EMOTIONS)
    among = total_effects(model, task, means, EMOTIONS, kind="neurons")
    found = find_by("total_effect", search)
    for e, emotion in enumerate(EMOTIONS):
        assert taken(found, emotion, "heads") == highest(exact[e], 2)
        candidates = highest(plain.neurons[e], 36)
        kept = torch.full_like(among[e], -9.0)
        for place in candidates:
            kept[place] = among[e][place]
        assert taken(found, emotion, "neurons") == highest(kept, 9)


def test_published_is_the_published_rule(search: Search) -> None:
    found = find_by("published", search)
    budget = Budget(total=11, neuron_share=9 / 11, max_share=1.0)
    assert search.circuit.influence is not None
    counts = allocate(search.circuit.influence.chosen, budget, search.circuit.sizes)
    assert torch.equal(found.allocation, counts)
    for e, emotion in enumerate(EMOTIONS):
        for layer in range(3):
            own = search.circuit.neuron_scores[e, layer]
            best = set(own.topk(int(counts[e, layer, 1])).indices.tolist())
            assert {i for at, i in taken(found, emotion, "neurons") if at == layer} == best
    with pytest.raises(DataError, match="no influence"):
        find_by("published", replace(search, circuit=replace(search.circuit, influence=None)))


def test_consensus_prefers_what_holds_in_every_fold() -> None:
    scores = torch.zeros(8, 1, 1, 6)
    scores[:, 0, 0, 1] = 1.0
    scores[:, 0, 0, 2] = 0.9
    scores[0, 0, 0, 5] = 9.0  # once, and much
    found = often_highest(scores, 2, seed=0)[0, 0]
    assert found[[1, 2]].min() > found[[0, 3, 4]].max()
    assert float(found[1]) > 0.9 and float(found[5]) < float(found[1])
    assert torch.equal(found, often_highest(scores, 2, seed=0)[0, 0])


def test_folds_are_whole_scenarios_and_all_of_the_task(search: Search) -> None:
    parts = folds(search.task, 2, 0)
    assert sorted(i for part in parts for i in part.items) == list(range(len(search.task)))
    for part in parts:
        assert part.texts("fear") == tuple(search.task.texts("fear")[i] for i in part.items)
    assert len({part.fingerprint for part in parts}) == 2


def test_sets_are_taken_out_together(search: Search) -> None:
    model, task, means = search.model, search.task, search.means
    sets = [torch.zeros(3, 64, dtype=torch.bool) for _ in range(3)]
    sets[0][0, [3, 5]] = True
    sets[1][[0, 2], [3, 7]] = True
    sets[2][1] = True
    found = set_effects(model, task, means, "fear", kind="neurons", sets=sets)
    centre = task.centre(model)
    clean = task.margins(model, ["fear"], centre)[:, 1]
    mean = means.mean("neurons").mean(0)
    for one, value in zip(sets, found.tolist(), strict=True):
        changes = [
            Intervention(at, replaced(mean[layer]), where)
            for layer in range(3)
            if bool(one[layer].any())
            for at, where in [neurons(model, layer, one[layer].nonzero().flatten().tolist())]
        ]
        with intervening(model, changes):
            fall = clean - task.margins(model, ["fear"], centre)[:, 1]
        assert value == pytest.approx(float(fall.mean()), abs=1e-4)
    with pytest.raises(DataError, match="holds no neurons"):
        set_effects(model, task, means, "fear", kind="neurons", sets=[sets[0] & ~sets[0]])


def test_greedy_beats_the_ranking_it_starts_from(search: Search) -> None:
    """On the texts that it chooses by, block by block, its fall is the larger."""
    greedy, plain = (find_by(name, search) for name in ("greedy", "attribution_patching"))
    for emotion in EMOTIONS:
        assert len(greedy.units(emotion, "neurons")) == 9
        assert len(greedy.units(emotion, "heads")) == 2
        sets = []
        for circuit in (greedy, plain):
            mask = torch.zeros(3, 64, dtype=torch.bool)
            for unit in circuit.units(emotion, "neurons"):
                mask[unit.layer, unit.index] = True
            sets.append(mask)
        fall = set_effects(
            search.model, search.task, search.means, emotion, kind="neurons", sets=sets
        )
        assert float(fall[0]) >= float(fall[1]) - 0.02 * abs(float(fall[1]))


def test_bad_input_is_one_sentence(search: Search) -> None:
    with pytest.raises(UnknownNameError, match="strategy"):
        find_by("best", search)
    with pytest.raises(DataError, match="There are 12 heads, not 13"):
        replace(search, heads=13)
    with pytest.raises(DataError, match="at least one unit"):
        replace(search, heads=0, neurons=0)


def test_carried_differences_are_of_replies_that_carry_on(search: Search) -> None:
    model, whole = search.model, corpus(4)
    task = CarryOver.of(model, whole, EMOTIONS, named=True)
    margins = torch.from_numpy(task.margins(model))
    kept = {
        (scenario, emotion)
        for i, scenario in enumerate(task.scenarios)
        for e, emotion in enumerate(EMOTIONS)
        if float(margins[i, e]) > 0
    }
    assert 0 < len(kept) < 12
    found = with_delta_by("carried", search.circuit, model, whole, task)
    means = []
    for emotion in EMOTIONS:
        of = tuple(r for r in whole if r.emotion == emotion and (r.scenario, emotion) in kept)
        every = tuple(r for r in whole if r.emotion == emotion)
        assert of and len(of) <= len(every)
        mean = unit_means(
            model, replace(whole, records=of), [emotion], position="mean:reply", grouped=False
        )
        means.append(mean.mean("neurons")[0])
    wanted = torch.stack(means) - torch.stack(means).mean(0)
    torch.testing.assert_close(found.delta_neurons, wanted, rtol=1e-4, atol=1e-5)
    assert found.units("fear", "neurons") == search.circuit.units("fear", "neurons")
    assert with_delta_by("group", search.circuit, model, whole, task) is search.circuit
    with pytest.raises(UnknownNameError, match="difference"):
        with_delta_by("refined", search.circuit, model, whole, task)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_tokens_are_those_of_the_mean_output(tiny_model: Any, family: str) -> None:
    model = tiny_model(family)
    means = unit_means(model, corpus(), EMOTIONS, position="mean:reply")
    written = written_tokens(model, means, [Sender(1, "head", 2), Sender(2, "mlp")], top=1)
    z = means.mean("heads").mean(0)[1]
    size = model.anatomy.d_head
    own = slice(2 * size, 3 * size)
    head = z[own] @ model.anatomy.blocks[1].o_proj.weight[:, own].T
    mlp = means.mean("out").mean(0)[2, 1]
    weight = model.anatomy.final_norm.weight.detach()
    gain = weight + 1 if family == "gemma3" else weight
    for name, vector in (("head 1.2", head), ("mlp 2", mlp)):
        logits = model.hf.lm_head.weight.detach() @ (vector * gain).detach()
        best = model.tokenizer.decode([int(logits.argmax())])
        worst = model.tokenizer.decode([int(logits.argmin())])
        assert written[name] == f"promotes {best!r}; suppresses {worst!r}"
