"""Pairs that begin alike: what they share runs once, and no score changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from affectlens.circuits import shared_start
from affectlens.circuits.attribution.edges import EdgeSettings, edge_scores
from affectlens.circuits.attribution.gradients import GradientSettings, gradient_scores
from affectlens.circuits.attribution.slopes import Against
from affectlens.circuits.shared_start import apart, may_begin_apart, shared
from affectlens.circuits.side_by_side import TokenRuns, prepare, row_runs
from affectlens.circuits.tasks import CarryOver
from affectlens.circuits.tasks.pairs import Pair
from affectlens.models.loading import load_model
from tests.circuits.test_carry_over import EMOTIONS, corpus
from tests.circuits.test_gradients import pairs_of
from tests.conftest import FAMILIES, tiny_hf, tiny_tokenizer

LAST = 3
"""Tokens of the contexts in which the texts of a pair differ."""


def task_of(model: Any) -> Any:
    return CarryOver.of(model, corpus(2), EMOTIONS, named=True)


def alike(task: Any) -> list[Any]:
    """Pairs that differ in the last tokens of their contexts alone."""
    found = []
    for pair in pairs_of(task, "fear"):
        corrupt = tuple(
            (weight, ((*clean[:-LAST], *other[-LAST:]), told))
            for (weight, (other, told)), (_, (clean, _)) in zip(
                pair.corrupt, pair.clean, strict=True
            )
        )
        found.append(replace(pair, corrupt=corrupt))
    return found


def both(model: Any, pair: Any) -> Any:
    ready = prepare(model, task_of(model), "fear", [pair.clean, pair.corrupt])
    return ready[0][0], ready[1][0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("path", ["none", "inputs", "activations", "drop"])
def test_scores_are_those_of_whole_texts(monkeypatch: Any, family: str, path: str) -> None:
    """In float64, so that no ReLU is on the other side of its kink by rounding."""
    model = load_model(tiny_hf(family).double(), tokenizer=tiny_tokenizer())
    task = task_of(model)
    against = Against(pairs={"fear": alike(task)})
    settings = GradientSettings(drop=True) if path == "drop" else GradientSettings(path, 3)
    found = gradient_scores(model, task, against, ["fear"], settings)
    monkeypatch.setattr(shared_start, "FEWEST", 10**6)
    wanted = gradient_scores(model, task, against, ["fear"], settings)
    for kind in ("heads", "neurons", "sublayers"):
        torch.testing.assert_close(found.of(kind), wanted.of(kind), rtol=1e-3, atol=1e-5)
    assert bool(found.sublayers.abs().sum() > 0)


@pytest.mark.parametrize("steps", [1, 3])
def test_edges_are_those_of_whole_texts(tiny_model: Any, monkeypatch: Any, steps: int) -> None:
    model = tiny_model("llama")
    task = task_of(model)
    against = Against(pairs={"fear": alike(task)})
    found = {
        into: edge_scores(model, task, against, ["fear"], EdgeSettings(steps, into=into))
        for into in ("attention", "heads")
    }
    monkeypatch.setattr(shared_start, "FEWEST", 10**6)
    for into, scores in found.items():
        wanted = edge_scores(model, task, against, ["fear"], EdgeSettings(steps, into=into))
        torch.testing.assert_close(
            scores.values, wanted.values, rtol=1e-3, atol=1e-5, equal_nan=True
        )


def test_what_is_shared_is_not_run_again(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pair = alike(task_of(model))[0]
    clean, corrupt = both(model, pair)
    context = len(pair.clean[0][1][0])
    assert shared(clean, corrupt) == context - LAST
    assert may_begin_apart([(clean, corrupt)])
    begun = apart(clean, corrupt)
    assert [one.tokens for one in begun] == [clean.tokens - (context - LAST)] * 2
    with torch.no_grad():
        for one, whole in zip(begun, (clean, corrupt), strict=True):
            wanted = float(whole())
            for _ in range(2):  # what is kept stays as it was
                assert one(3).tolist() == pytest.approx([wanted] * 3, abs=1e-5)


def test_texts_that_are_the_same_leave_what_is_told(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pair = alike(task_of(model))[0]
    clean, _ = both(model, pair)
    assert shared(clean, clean) == len(pair.clean[0][1][0]) - 1
    one, _ = apart(clean, clean)
    with torch.no_grad():
        assert float(one()) == pytest.approx(float(clean()), abs=1e-5)


def test_texts_with_little_in_common_run_whole(tiny_model: Any) -> None:
    model = tiny_model("llama")
    pair = pairs_of(task_of(model), "fear")[0]
    clean, corrupt = both(model, pair)
    assert not may_begin_apart([(clean, corrupt)])
    assert apart(clean, corrupt) == (clean, corrupt)


def test_a_model_that_goes_on_otherwise_runs_whole(tiny_model: Any, monkeypatch: Any) -> None:
    """Keys and values that are not those of the tokens before."""
    model = tiny_model("llama")
    clean, corrupt = both(model, alike(task_of(model))[0])
    keep = TokenRuns.keep

    def wrong(runs: TokenRuns) -> Any:
        cache = keep(runs)
        for layer in cache.layers:
            layer.values = 3 * layer.values + 1
        return cache

    monkeypatch.setattr(TokenRuns, "keep", wrong)
    assert not may_begin_apart([(clean, corrupt)])
    for nothing in (None, ((1, 2),)):
        monkeypatch.setattr(TokenRuns, "keep", lambda _runs, nothing=nothing: nothing)
        assert not may_begin_apart([(clean, corrupt)])


def test_angles_that_depend_on_the_length_of_a_text(monkeypatch: Any) -> None:
    """A short beginning's keys are no longer those of the whole: such texts run whole."""
    angles = {"rope_type": "longrope", "rope_theta": 10_000.0}
    angles |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    hf = tiny_hf(
        "llama",
        rope_parameters={**angles, "original_max_position_embeddings": 32},
        max_position_embeddings=256,
    )
    model = load_model(hf, tokenizer=tiny_tokenizer())
    text = tuple(range(5, 60))
    told = tuple(range(60, 63))

    def pair(length: int, start: int) -> Pair:
        other = (*text[:start], *reversed(text[start:length]))
        return Pair(0, "fear", "other", ((1.0, (text[:length], told)),), ((1.0, (other, told)),))

    # The longer one begins apart behind the bound, and so does not show it; the other crosses it.
    pairs = [pair(52, 45), pair(44, 12)]
    task, settings = task_of(model), GradientSettings("inputs", 2)
    found = gradient_scores(model, task, Against(pairs={"fear": pairs}), ["fear"], settings)
    monkeypatch.setattr(shared_start, "FEWEST", 10**6)
    wanted = gradient_scores(model, task, Against(pairs={"fear": pairs}), ["fear"], settings)
    torch.testing.assert_close(found.heads, wanted.heads, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.neurons, wanted.neurons, rtol=1e-3, atol=1e-6)


def test_the_longest_row_counts_beside_the_longest_text() -> None:
    """A window is left by a long row of few continuations, too."""
    hf = tiny_hf("mistral", sliding_window=26)
    model = load_model(hf, tokenizer=tiny_tokenizer())
    text = tuple(range(5, 60))
    many = tuple((0.1, (text[:18], tuple(range(60 + i, 65 + i)))) for i in range(10))
    few = tuple((0.5, (text[:40], tuple(range(80 + i, 83 + i)))) for i in range(2))
    ready = prepare(model, task_of(model), "fear", [many, few])
    with torch.no_grad():
        found = [sum(float(run()) for run in runs) for runs in ready]
        wanted = [sum(float(run()) for run in row_runs(model, one)) for one in (many, few)]
    assert found == pytest.approx(wanted, abs=1e-4)
