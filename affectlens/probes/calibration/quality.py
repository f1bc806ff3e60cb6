"""How far probabilities can be trusted: log-loss, calibration error, reliability curve.

Of exclusive classes each row counts by its likeliest class (top-label calibration); of labels that
stand by themselves every label of every row counts. Intervals draw whole groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from affectlens.core.errors import DataError
from affectlens.core.statistics import LEVEL, times_drawn

Floats = np.ndarray[Any, np.dtype[np.float64]]
BINS = 15


@dataclass(frozen=True)
class Quality:
    """Of some rows nobody fitted anything on.

    Attributes:
        log_loss: Mean of ``-log p`` of the truth, nats; of labels, summed over them.
        ece: Expected calibration error: mean distance of claim and share, bin by bin.
        ece_low, ece_high: 95 % interval; NaN of one group. Few rows widen and raise an ECE.
        rows: How many rows.
        groups: How many groups.
        claimed: Mean probability claimed in each bin that holds any.
        found: Share that came true there.
        low, high: Its interval over groups.
        count: How many there are.
    """

    log_loss: float
    ece: float
    ece_low: float
    ece_high: float
    rows: int
    groups: int
    claimed: tuple[float, ...]
    found: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    count: tuple[int, ...]


def quality(
    probabilities: Float[np.ndarray, "n class"],
    truth: Float[np.ndarray, "n class"],
    groups: Sequence[Hashable],
    *,
    exclusive: bool = True,
    bins: int = BINS,
    draws: int = 2000,
    seed: int = 0,
) -> Quality:
    """Measure probabilities by what came true.

    Args:
        probabilities: Of rows that nothing was fitted on.
        truth: 0 or 1.
        groups: Of each row; drawn as wholes.
        exclusive: Whether a row has one class.
        bins: Of equal width, over 0 to 1.
        draws: Bootstrap samples.
        seed: Of them.

    Raises:
        DataError: If there is no row, or lengths differ.
    """
    p, t = np.asarray(probabilities, np.float64), np.asarray(truth, np.float64)
    if p.shape != t.shape or len(p) != len(groups) or not len(p):
        raise DataError(
            f"Probabilities of {len(p)} rows cannot be judged by {len(t)} truths and "
            f"{len(groups)} groups; give every row both."
        )
    names, group = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)
    tiny = np.finfo(np.float64).tiny
    if exclusive:
        loss = float(-(t * np.log(p.clip(tiny))).sum(1).mean())
        claim, hit, owner = p.max(1), np.take_along_axis(t, p.argmax(1)[:, None], 1)[:, 0], group
    else:
        each = t * np.log(p.clip(tiny)) + (1 - t) * np.log((1 - p).clip(tiny))
        loss = float(-each.sum(1).mean())
        claim, hit, owner = p.ravel(), t.ravel(), np.repeat(group, p.shape[1])
    place = np.minimum((claim * bins).astype(int), bins - 1)
    sums = np.zeros((3, len(names), bins))  # rows, claims, hits of each group and bin
    for row, values in enumerate((np.ones_like(claim), claim, hit)):
        np.add.at(sums[row], (owner, place), values)
    total = sums.sum(1)
    used = total[0] > 0
    times = times_drawn(len(names), draws, seed)
    drawn = np.stack([times @ one for one in sums])  # [3, draw, bin]
    errors = np.abs(drawn[1] - drawn[2]).sum(1) / drawn[0].sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = drawn[2] / drawn[0]
    single = len(names) == 1
    tail = (1 - LEVEL) / 2
    ends = [np.nan, np.nan] if single else np.quantile(errors, [tail, 1 - tail])
    low, high = np.nanquantile(shares[:, used], [tail, 1 - tail], axis=0)
    return Quality(
        log_loss=loss,
        ece=float(np.abs(total[1] - total[2]).sum() / total[0].sum()),
        ece_low=float(ends[0]),
        ece_high=float(ends[1]),
        rows=len(p),
        groups=len(names),
        claimed=tuple((total[1] / total[0].clip(1))[used].tolist()),
        found=tuple((total[2] / total[0].clip(1))[used].tolist()),
        low=tuple((low * np.nan if single else low).tolist()),
        high=tuple((high * np.nan if single else high).tolist()),
        count=tuple(int(n) for n in total[0][used]),
    )
