"""An effect beside the same of random draws: is it more than they do, and than they differ?

Two questions, and the larger p of both counts. Over scenarios: is the difference to the mean of the
draws more than texts would give by chance? Over draws: is it more than another draw would differ
from them? With many texts the first alone finds every single random direction to be above or below
the mean of a few others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.circuits.causal_table import Effect
from affectlens.core.statistics import holm, p_of_one_more, paired_difference

Floats = np.ndarray[Any, np.dtype[np.float64]]


def effect_beside(
    values: Sequence[Float[Floats, " item"]],
    scenarios: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Effect:
    """The first of several per-item effects against the mean of the others, which are random.

    Args:
        values: Of the same items each; two random ones or more.
        scenarios: Of each item.
        resamples: Bootstrap draws of scenarios.
        seed: Of them.

    Returns:
        With p over scenarios, never below what so few of them allow (`affectlens.core.statistics`).
    """
    own, random = values[0], np.mean(values[1:], axis=0)
    found = paired_difference(own, random, scenarios, draws=resamples, random=seed)
    alone = paired_difference(own, np.zeros_like(own), scenarios, draws=resamples, random=seed)
    return Effect(
        value=alone.mean,
        low=alone.low,
        high=alone.high,
        random=float(random.mean()),
        spread=float(np.std([one.mean() for one in values[1:]], ddof=1)),
        over_random=found.mean,
        p=found.p,
        items=len(own),
    )


def adjusted(effects: Sequence[Effect], draws: int) -> Float[Floats, " effect"]:
    """p of the same effect in each emotion: the larger over scenarios and draws, by Holm.

    How far draws differ is pooled over the emotions, each of which has draws of its own; the
    difference over ``spread * sqrt(1 + 1 / draws)`` is then t with ``emotions * (draws - 1)``
    degrees of freedom, as of one more observation of a normal sample.

    Args:
        effects: Of `effect_beside`.
        draws: Random ones beside each, two or more.
    """
    pooled = float(np.sqrt(np.mean([one.spread**2 for one in effects])))
    over = np.array([one.over_random for one in effects])
    beyond = p_of_one_more(over, pooled, draws, len(effects) * (draws - 1))
    return holm(np.maximum([one.p for one in effects], beyond))
