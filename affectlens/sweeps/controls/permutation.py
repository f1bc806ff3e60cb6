"""Labels put in another order: what the whole procedure finds where there is nothing.

Where a group shows several labels they change places within it, so that its content stays; else
whole groups change places. The probe is fitted and scored as ever, at one penalty, the middle one
of those tried, for the labels as they are and for every other order: nothing was chosen by either,
so that p is exact. ``p = (1 + orders that do as well) / (1 + orders)``; over all sites, orders of
which the best site does as well (Westfall and Young), as every order is the same at all of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.core.permutations import westfall_young
from affectlens.probes.crossval import fit_probes, out_of_fold
from affectlens.probes.design import Design
from affectlens.probes.estimators import ProbeKind
from affectlens.sweeps.controls.base import TOL, Control, Row, Setting

_TRIES = 2000
OVER_SITES = "p over all sites"
"""Measure of the family-wise p."""


def permuted(design: Design, random: np.random.Generator) -> Tensor:
    """The target of a design in another order, which could as well have come about.

    Fitting and held-out rows each keep theirs, so that both have the classes that they had. Only
    orders count of which every class lies in folds enough: others would have been refused as the
    labels of a corpus, and real labels that need not fear them would win for that alone.

    Raises:
        DataError: If there is next to no such order.
    """
    for _ in range(_TRIES):
        y = _reordered(design, random)
        if replace(design, y=y).spread:
            return y
    raise DataError(
        f"The labels of {design.target} have next to no other order in which every class lies in "
        "folds enough; take fewer folds, or leave out the control permutation."
    )


def _reordered(design: Design, random: np.random.Generator) -> Tensor:
    y = design.y.clone()
    groups = np.array(design.groups)
    for part in (design.fit.numpy(), ~design.fit.numpy()):
        members = [np.flatnonzero((groups == g) & part) for g in dict.fromkeys(groups[part])]
        mixed = sum(len(set(y[rows].tolist())) > 1 for rows in members)
        if 2 * mixed >= max(1, len(members)):
            for rows in members:
                y[rows] = design.y[random.permutation(rows)]
            continue
        of_size: dict[int, list[np.ndarray]] = {}
        for rows in members:
            of_size.setdefault(len(rows), []).append(rows)
        for alike in of_size.values():
            for rows, other in zip(alike, random.permutation(len(alike)), strict=True):
                y[rows] = design.y[alike[other]]
    return y


def plain_score(
    x: Float[Tensor, "site n d"], design: Design, penalty: float, probe: ProbeKind
) -> Float[Tensor, " site"]:
    """Goodness of held-out rows at one penalty: accuracy, or less the mean squared error."""
    if design.nested:
        return out_of_fold(x, design, (penalty,), probe, tol=TOL).sum(1) / len(design.y)
    fits = fit_probes(x, design, (penalty,), design.fit[None].float(), probe, tol=TOL)
    return design.good(fits.logits(x))[:, 0, 0][:, design.held].mean(1)


def permutation(setting: Setting) -> list[Row]:
    """How often another order of the labels is read as well, at every site."""
    design, sites = setting.design, setting.sites
    tried = sorted(setting.options["penalties"])  # pyright: ignore[reportTypedDictNotRequiredAccess]
    penalty = float(tried[len(tried) // 2])
    random = np.random.default_rng(setting.fitting.seed)
    orders = [permuted(design, random) for _ in range(setting.fitting.permutations)]
    real, null = np.zeros(len(sites)), np.zeros((len(orders), len(sites)))
    for i, site in enumerate(sites):
        x = setting.rows.read([site], design)
        real[i] = float(plain_score(x, design, penalty, setting.probe)[0])
        for j, y in enumerate(orders):
            null[j, i] = float(plain_score(x, replace(design, y=y), penalty, setting.probe)[0])
    alone, corrected = westfall_young(real, null)
    what = "less squared error" if setting.numbers else "accuracy"
    note = f"{len(orders)} orders, C {penalty:g}"
    rows: list[Row] = []
    for i, site in enumerate(sites):
        name = site.hook_name
        p = float(alone[i])
        rows.append(setting.row("permutation", what, real[i], site=name, p=p, note=note))
        rows.append(
            setting.row("permutation", f"{what}, permuted", float(null[:, i].mean()), site=name)
        )
        rows.append(setting.row("permutation", OVER_SITES, float(corrected[i]), site=name))
    return rows


PERMUTATION = Control(
    "permutation",
    "labels in other orders, read as ever; p at every site",
    "With so many features and layers something is always found.",
    permutation,
    numbers=True,
)
