"""What doses do, as a line that can be turned round: from points on tuning scenarios to knots.

The line is a centred isotonic regression (Oron and Flournoy, 2017, Statistics in Biopharmaceutical
Research 9, 258-267): the least-squares line that never falls, each of its level stretches drawn
together to its weighted middle, so that it rises strictly and every effect has one dose. The first
stretch lies at dose 0, the last at the smallest of its doses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from affectlens.core import DataError
from affectlens.steering.intensity import DoseResponse

LEAST_RISE = 1e-6
"""Knots that differ by less are one stretch."""


def fit_dose_response(
    doses: Sequence[float], values: Sequence[float], weights: Sequence[float] | None = None
) -> DoseResponse:
    """Fit the line.

    Args:
        doses: In natural doses, 0 among them, in any order; values of one dose are averaged.
        values: The effect of each.
        weights: How much each counts, such as the replies behind it; default: alike.

    Raises:
        DataError: If there is nothing to fit, a number is none, dose 0 is missing, or the effect
            does not rise with the dose.
    """
    from sklearn.isotonic import IsotonicRegression

    x, y = np.asarray(doses, dtype=np.float64), np.asarray(values, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(x) == len(y) == len(w):
        raise DataError(f"There are {len(x)} doses, {len(y)} values and {len(w)} weights.")
    finite = all(bool(np.isfinite(a).all()) for a in (x, y, w))
    if not finite or not len(x) or x.min() != 0 or w.min() <= 0:
        raise DataError(
            "A dose-response is fitted to finite values of doses from 0 on, 0 among them, with "
            "weights above 0."
        )
    knots, place = np.unique(x, return_inverse=True)
    count = np.bincount(place, w)
    mean = np.bincount(place, w * y) / count
    level = IsotonicRegression().fit(knots, mean, sample_weight=count).predict(knots)
    starts = [0, *(np.flatnonzero(np.diff(level) > LEAST_RISE) + 1), len(level)]
    pairs = list(itertools.pairwise(starts))
    if len(pairs) < 2:
        raise DataError(
            "The effect does not rise with the dose, so no dose can be told from what is asked."
        )
    centres = [float(np.average(knots[a:b], weights=count[a:b])) for a, b in pairs]
    # Where it stays level to the end, the first dose does what the larger ones do.
    centres[0], centres[-1] = 0.0, float(knots[pairs[-1][0]])
    return DoseResponse(tuple(centres), tuple(float(np.average(level[a:b])) for a, b in pairs))
