"""Effects beside random draws: by arithmetic, and their level where there is nothing to find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from affectlens.circuits.beside_random import adjusted, effect_beside


def effects(
    rng: Any, *, items: int, draws: int, among_items: float, among_draws: float, own: float = 0.0
) -> Sequence[Any]:
    """Three emotions: each set of units has an effect of its own, each item some noise beside."""
    found = []
    for _ in range(3):
        sets = rng.normal(size=(1 + draws, 1)) * among_draws
        sets[0] += own
        values = 1.0 + sets + rng.normal(size=(1 + draws, items)) * among_items
        names = [f"s{i}" for i in range(items)]
        found.append(effect_beside(list(values), names, resamples=400, seed=0))
    return found


@pytest.mark.parametrize(
    ("items", "draws", "among_items", "among_draws"),
    [(4, 3, 1.0, 0.0), (60, 3, 0.1, 1.0), (30, 4, 1.0, 0.3)],
)
def test_one_more_random_draw_is_seldom_found(
    items: int, draws: int, among_items: float, among_draws: float
) -> None:
    """With few scenarios, or with many that agree on how far one draw is from three others."""
    rng = np.random.default_rng(0)
    asked = {"items": items, "draws": draws, "among_items": among_items, "among_draws": among_draws}
    found, bootstrap_alone = 0, 0
    for _ in range(100):
        given = effects(rng, **asked)
        found += bool((adjusted(given, draws) < 0.05).any())
        bootstrap_alone += any(one.low > one.random or one.high < one.random for one in given)
    assert found / 100 <= 0.08
    assert bootstrap_alone / 100 > 0.2  # so something was there to be mended


def test_what_is_far_from_all_draws_is_found() -> None:
    rng = np.random.default_rng(1)
    given = effects(rng, items=20, draws=4, among_items=0.3, among_draws=0.2, own=3.0)
    assert (adjusted(given, 4) < 0.02).all()
    few = effects(rng, items=4, draws=4, among_items=0.3, among_draws=0.2, own=3.0)
    assert (adjusted(few, 4) >= 3 * 2.0**-3).all()


def test_p_over_draws_is_that_of_one_more_observation() -> None:
    """Of one emotion alone: Student's test of a sample of one against the draws."""
    values = [np.full(12, x) for x in (2.0, 0.1, -0.3, 0.5, 0.2)]
    one = effect_beside(values, [f"s{i}" for i in range(12)])
    draws = [float(x[0]) for x in values[1:]]
    assert one.spread == pytest.approx(np.std(draws, ddof=1))
    assert one.random == pytest.approx(np.mean(draws)) and one.over_random == pytest.approx(1.875)
    wanted = ttest_ind([2.0], draws).pvalue
    assert adjusted([one], 4)[0] == pytest.approx(max(wanted, 2.0**-11))
    none = effect_beside([np.zeros(12)] * 3, [f"s{i}" for i in range(12)])
    assert adjusted([none], 2)[0] == 1.0
