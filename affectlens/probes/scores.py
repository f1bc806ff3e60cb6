"""Scores of held-out rows at all sites, with intervals that draw whole groups.

Of labels: accuracy, macro-F1, balanced accuracy, AUROC (one class against the rest, mean over the
classes), recall of each class. Of numbers: Pearson's r, the concordance coefficient, R². All but
AUROC are functions of sums over rows, so that a bootstrap of all sites is one matrix product of how
often each group is drawn with the sums of each group; AUROC is one such product per class and site,
sparse, summed along the ranks.

A class that a draw has no row of has no recall there; means over classes leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from affectlens.core.statistics import LEVEL, times_drawn
from affectlens.probes.held_out import HeldOut

if TYPE_CHECKING:
    from affectlens.core.statistics import Random

Floats = np.ndarray[Any, np.dtype[Any]]

LABEL_SCORES = ("accuracy", "macro_f1", "balanced_accuracy", "auroc")
NUMBER_SCORES = ("pearson", "ccc", "r2")
_CELLS_AT_ONCE = 1 << 20  # of rows × draws: what fits a processor's cache


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a sweep.

    Attributes:
        names: Along the axis ``score``: :data:`LABEL_SCORES` and ``recall:<class>``, or
            :data:`NUMBER_SCORES`.
        value: On all held-out rows; NaN where it is not defined.
        low, high: 95 % bootstrap interval over groups; NaN if there is but one group.
        confusion: Rows of each class (first axis) said to be of each class; empty for numbers.
    """

    names: tuple[str, ...]
    value: Float[Floats, "score site"]
    low: Float[Floats, "score site"]
    high: Float[Floats, "score site"]
    confusion: Int[Floats, "site class class"]

    def __getitem__(self, name: str) -> Float[Floats, " site"]:
        return self.value[self.names.index(name)]

    def interval(self, name: str) -> Float[Floats, "site 2"]:
        """Both ends of a score's interval."""
        i = self.names.index(name)
        return np.stack([self.low[i], self.high[i]], axis=1)

    def rows(self, site: int) -> list[dict[str, Any]]:
        """``score``, ``value``, ``low`` and ``high`` of a site."""
        return [
            {"score": n, "value": float(v), "low": float(a), "high": float(b)}
            for n, v, a, b in zip(
                self.names, self.value[:, site], self.low[:, site], self.high[:, site], strict=True
            )
        ]


def scores(held: HeldOut, *, draws: int = 2000, random: Random = 0) -> Scores:
    """All scores of all sites, with intervals.

    Args:
        held: What probes say of held-out rows.
        draws: Bootstrap draws of groups.
        random: See `affectlens.core.statistics.times_drawn`.
    """
    index, count = held.numbered()
    times = np.concatenate([np.ones((1, count)), times_drawn(count, draws, random)])
    if held.classes:
        found = _label_scores(held, index, times)
    else:
        found = _number_scores(held, index, times)
    drawn = np.stack(list(found.values()))  # [score, draw, site]
    with np.errstate(all="ignore"):
        tail = (1 - LEVEL) / 2
        low, high = _quantiles(drawn[:, 1:], (tail, 1 - tail))
    if count == 1:
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    return Scores(tuple(found), drawn[:, 0], low, high, confusion(held))


def confusion(held: HeldOut) -> Int[Floats, "site class class"]:
    """Rows of each class said to be of each class."""
    k = len(held.classes)
    if not k:
        return np.zeros((len(held.outputs), 0, 0), np.int64)
    said = held.outputs.argmax(-1)
    cells = (held.truth * k + said).numpy()
    return np.stack([np.bincount(row, minlength=k * k).reshape(k, k) for row in cells])


def _quantiles(drawn: Float[Floats, "score draw site"], ends: tuple[float, float]) -> Floats:
    if not np.isnan(drawn).any():
        return np.quantile(drawn, ends, axis=1)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a score that no draw defines is NaN
        return np.nanquantile(drawn, ends, axis=1)


def _sums(
    values: Float[Floats, "site n sum"], index: Int[Floats, " n"], times: Float[Floats, "draw g"]
) -> Float[Floats, "draw site sum"]:
    """Sums over the rows that come along with each draw."""
    sites, _, sums = values.shape
    per_group = np.zeros((times.shape[1], sites * sums), np.float64)
    np.add.at(per_group, index, values.transpose(1, 0, 2).reshape(len(index), -1))
    return (times @ per_group).reshape(len(times), sites, sums)


def _label_scores(
    held: HeldOut, index: Int[Floats, " n"], times: Float[Floats, "draw g"]
) -> Mapping[str, Float[Floats, "draw site"]]:
    k = len(held.classes)
    truth = np.eye(k)[held.truth.numpy()]  # [n, class]
    said = np.eye(k)[held.outputs.argmax(-1).numpy()]  # [site, n, class]
    both = _sums(said * truth, index, times)
    told = _sums(said, index, times)
    there = _sums(truth[None], index, times)  # [draw, 1, class]
    with np.errstate(all="ignore"):
        recall = both / there
        f1 = 2 * both / (told + there)  # as scikit-learn: undefined where neither occurs
        present = np.broadcast_to(there > 0, recall.shape)
        counted = (told + there) > 0
        found = {
            "accuracy": both.sum(-1) / there.sum(-1),
            "macro_f1": np.where(counted, f1, 0.0).sum(-1) / counted.sum(-1),
            "balanced_accuracy": np.where(present, recall, 0.0).sum(-1) / present.sum(-1),
            "auroc": auroc(held, index, times),
        }
    return found | {f"recall:{name}": recall[..., i] for i, name in enumerate(held.classes)}


def auroc(
    held: HeldOut, index: Int[Floats, " n"], times: Float[Floats, "draw g"]
) -> Float[Floats, "draw site"]:
    """Area under the ROC curve of each class's probability against the rest, mean over classes.

    Of weighted rows: the share of pairs of a row of the class and another in which the first has
    the higher score, ties counted half.
    """
    chance = held.probabilities().numpy().transpose(2, 0, 1)  # [class, site, n]
    own = held.truth.numpy() == np.arange(len(chance))[:, None, None]
    areas = area_under_curve(chance, own, index, times)
    counted = (~np.isnan(areas)).sum(0)
    with np.errstate(all="ignore"):
        return np.where(counted > 0, np.nansum(areas, axis=0) / counted, np.nan).T


def area_under_curve(
    said: Float[Floats, "*score n"],
    own: Bool[Floats, "*#score n"],
    index: Int[Floats, " n"],
    times: Float[Floats, "draw g"],
) -> Float[Floats, "*score draw"]:
    """Area under the ROC curve of scores, ties counted half; NaN of a draw without both sides.

    Args:
        said: Scores of each row.
        own: Whether a row is of the class.
        index: Number of its group.
        times: How often each draw has each group.
    """
    hits = np.broadcast_to(own, said.shape).reshape(-1, len(index))
    places = [
        _places(one, hit, index, times.shape[1])
        for one, hit in zip(said.reshape(hits.shape), hits, strict=True)
    ]
    won = np.empty((len(places), len(times)))
    step = max(1, _CELLS_AT_ONCE // len(index))
    for begin in range(0, len(times), step):
        part = np.ascontiguousarray(times[begin : begin + step].T, dtype=np.float32)
        for i, (others, groups) in enumerate(places):
            below = others @ part
            np.cumsum(below, axis=0, out=below)
            below *= part[groups]
            won[i, begin : begin + step] = below.sum(0, dtype=np.float64)
    won = won.reshape(*said.shape[:-1], len(times))
    pairs = _grouped(own, index, times) * _grouped(~own, index, times)
    return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)


def _grouped(
    chosen: Bool[Floats, "*score n"], index: Int[Floats, " n"], times: Float[Floats, "draw g"]
) -> Float[Floats, "*score draw"]:
    """How many of some rows each draw has."""
    per_group = np.zeros((times.shape[1], *chosen.shape[:-1]))
    np.add.at(per_group, index, np.moveaxis(chosen, -1, 0))
    return np.moveaxis(np.tensordot(times, per_group, 1), 0, -1)


def _places(
    said: Float[Floats, " n"], own: Bool[Floats, " n"], index: Int[Floats, " n"], groups: int
) -> tuple[Any, Int[Floats, " own"]]:
    """What other rows count for: weights ``[own, g]`` that add up downwards, own rows in order.

    Half of another row counts for all own rows above it, half for all that are not below it: ties
    count half. So only the few own rows are ranked, and the others need but their place among them.

    Returns:
        The weights, sparse, and the groups of the own rows in their order.
    """
    from scipy.sparse import csr_matrix

    order = np.argsort(said[own], kind="stable")
    ranked, others = said[own][order], said[~own]
    rows = np.concatenate([np.searchsorted(ranked, others, side) for side in ("left", "right")])
    halves = np.full(len(rows), 0.5, np.float32)
    shape = (len(ranked) + 1, groups)  # the last row is above all own ones
    weights = csr_matrix((halves, (rows, np.tile(index[~own], 2))), shape)[:-1]
    return weights, index[own][order]


def _number_scores(
    held: HeldOut, index: Int[Floats, " n"], times: Float[Floats, "draw g"]
) -> Mapping[str, Float[Floats, "draw site"]]:
    # About the mean of all rows: sums of squares of large numbers would cancel.
    middle = float(held.truth.double().mean())
    truth = held.truth.double().numpy() - middle
    said = held.outputs[..., 0].double().numpy() - middle
    same = np.broadcast_to(truth, said.shape)
    values = np.stack([np.ones_like(said), same, said, same**2, said**2, same * said], axis=-1)
    n, t, p, tt, pp, tp = np.moveaxis(_sums(values, index, times), -1, 0)
    with np.errstate(all="ignore"):
        vt, vp, cov = tt / n - (t / n) ** 2, pp / n - (p / n) ** 2, tp / n - t * p / n**2
        error = tt - 2 * tp + pp
        varied = vp > 1e-10 * vt  # the same number of every row correlates with nothing
        return {
            "pearson": np.where(varied, cov / np.sqrt(vt * vp), np.nan),
            "ccc": 2 * cov / (vt + vp + (t / n - p / n) ** 2),
            "r2": 1 - error / (n * vt),
        }
