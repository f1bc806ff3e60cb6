"""Rounds and what they cost; the best of planted candidates is found; why nothing happens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from affectlens.core import DataError
from affectlens.evaluation.halving import Outcome, best_of, rungs, successive_halving
from affectlens.evaluation.no_effect import Effect, reason


@pytest.mark.parametrize("n", [1, 2, 7, 32, 100])
@pytest.mark.parametrize("keep", [2, 3, 5])
def test_rungs_stay_within_the_budget(n: int, keep: int) -> None:
    budget, tokens = 40_000, 10
    plan = rungs(n, budget, tokens, most_events=10_000, keep=keep)
    assert plan[0].candidates == n and plan[-1].candidates == 1
    before, spent = 0, 0
    for rung in plan:
        spent += rung.candidates * (rung.events - before) * tokens
        before = rung.events
    assert spent <= budget
    if len(plan) > 1:
        assert spent > budget / 2
    assert all(a.events < b.events for a, b in itertools.pairwise(plan))


def test_events_end_and_budgets_are_too_small() -> None:
    plan = rungs(9, 9000, 10, most_events=5, keep=3)
    assert [r.events for r in plan] == [5, 5, 5]
    with pytest.raises(DataError, match=r"270 generated tokens or more, not 269"):
        rungs(9, 269, 10, most_events=5, keep=3)
    assert rungs(9, 270, 10, most_events=5, keep=3)[0].events == 1


def test_the_best_of_planted_candidates_is_found() -> None:
    """Noise falls with events; the one with the highest mean survives, however lucky others are."""
    means = {c: 0.3 + 0.4 * (c == 13) for c in range(27)}
    random = np.random.default_rng(0)
    draws = {c: random.binomial(1, m, 400) for c, m in means.items()}
    asked: list[tuple[int, int]] = []

    def measure(some: Sequence[int], events: int) -> list[Outcome[int]]:
        asked.append((len(some), events))
        return [Outcome(c, events, draws[c][:events].mean(), c == 5, events) for c in some]

    plan = rungs(27, 27_000, 10, most_events=400)
    told = successive_halving(list(means), plan, measure)
    best = best_of(told)
    assert best is not None and best.candidate == 13
    assert [n for n, _ in asked] == [27, 9, 3, 1] and asked == [
        (r.candidates, r.events) for r in plan
    ]
    assert 5 not in {one.candidate for one in told[27:]}  # broken: dropped at once


def test_all_broken_is_no_best() -> None:
    told = successive_halving(
        [1, 2, 3], rungs(3, 300, 10, most_events=9), lambda some, n: [
            Outcome(c, n, 1.0, True, n) for c in some
        ],
    )  # fmt: skip
    assert len(told) == 3 and best_of(told) is None and best_of([]) is None


BASE = {"heard": 0.0, "named": 0.0, "perplexity_ratio": 1.5, "kl": 0.5}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"heard": 0.4}, "it works"),
        ({"heard": 0.4, "perplexity_ratio": 9.0}, "text breaks"),
        ({"kl": 0.01, "kl_ungated": 0.5}, "gate closed"),
        ({"kl": 0.4, "kl_ungated": 0.5}, "wrong site"),
        ({"kl": 0.001, "size": 0.005}, "too weak"),
        ({"kl": 0.001, "size": 0.3}, "model ignores it"),
        ({"kl": 0.001}, "model ignores it"),
        ({"size": 0.3}, "wrong site"),
        ({"named": 0.5, "size": 0.3}, "judge deaf"),
    ],
)
def test_reasons(changes: dict[str, float], name: str) -> None:
    effect = Effect(**{**BASE, **changes})
    found = reason(effect, max_perplexity_ratio=4.0)
    assert found.name == name
    shown = {"text breaks": "9.0", "gate closed": "0.500", "too weak": "0.5%"}.get(name)
    assert shown is None or shown in found.sentence


def test_rounds_that_add_no_event_are_left_out() -> None:
    told = successive_halving(
        list(range(9)), rungs(9, 9000, 10, most_events=5), lambda some, n: [
            Outcome(c, n, float(c), False, n) for c in some
        ],
    )  # fmt: skip
    best = best_of(told)
    assert len(told) == 9 and best is not None and best.candidate == 8
