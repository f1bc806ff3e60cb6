"""Learning curves: how many labelled groups are enough?"""

from __future__ import annotations

import numpy as np
import torch

from affectlens.core.statistics import bootstrap_interval
from affectlens.probes.crossval import fit_probes
from affectlens.probes.scores import scores
from affectlens.sweeps.controls.base import Row, Setting, shuffled_places, some_rows

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
REPEATS = 3


def learning_curve(setting: Setting) -> list[Row]:
    """The first score by share of the fitting groups, at the chosen site and its penalty.

    Each share is drawn `REPEATS` times; every probe is scored on the same held-out rows, and the
    mean over draws has an interval over their groups. Without a test split the first fold is held
    out here. Shares that leave a class out are left out.
    """
    design, cell = setting.design, setting.cell
    site, penalty = setting.sites[cell.best], cell.sweep.penalty[cell.best]
    fit = design.fit & (design.fold != 0) if design.nested else design.fit
    asked = design.fold == 0 if design.nested else ~design.fit
    random = np.random.default_rng(setting.fitting.seed)
    masks, sizes = list[torch.Tensor](), list[int]()
    count = len({g for g, f in zip(design.groups, fit, strict=True) if f})
    wanted = sorted({max(2, round(share * count)) for share in SHARES})
    for _ in range(REPEATS):
        place, _ = shuffled_places(design.groups, fit, random)
        for size in wanted:
            rows = fit & (place < size)
            if len(set(design.y[rows].tolist())) >= max(2, len(design.classes)):
                masks.append(rows.float())
                sizes.append(size)
    x = setting.rows.read([site], design)
    fits = fit_probes(x, design, (penalty,), torch.stack(masks), setting.probe)
    said = fits.logits(x)[0, :, 0][:, asked]  # [draw, row, output]
    clusters = [g for g, a in zip(design.groups, asked, strict=True) if a]
    whole = asked[design.held].nonzero()[:, 0].numpy()
    held = some_rows(setting.held, whole, said)
    value = scores(held, draws=2)[cell.measure]
    good = design.good(fits.logits(x))[0, :, 0][:, asked].double().numpy()
    rows_of = np.array([float(mask.sum()) for mask in masks])
    found: list[Row] = []
    for size in dict.fromkeys(sizes):
        mine = [i for i, one in enumerate(sizes) if one == size]
        low, high = float("nan"), float("nan")
        if design.classes:  # a correlation is no mean over rows
            low, high = bootstrap_interval(
                good[mine].mean(0), clusters, draws=setting.fitting.draws,
                random=setting.fitting.seed,
            )  # fmt: skip
        found.append(
            {
                **cell.name,
                "site": site.hook_name,
                "measure": cell.measure,
                "share": size / count,
                "groups": size,
                "rows": float(rows_of[mine].mean()),
                "value": float(np.mean(value[mine])),
                "low": float(low),
                "high": float(high),
                "draws": len(mine),
            }
        )
    return found
