"""Grouped, nested cross-validation of probes: penalties are chosen on folds nobody is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.design import Design
from affectlens.probes.estimators import ProbeKind
from affectlens.probes.estimators.base import CLASSES, NUMBERS

TOL = 1e-3
"""Objectives are within 1e-5 of the optimum's, and 99.9 % of rows are said to be the same."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Probes of some sites and what they say of held-out rows.

    Attributes:
        cv: How good each penalty was on the folds: accuracy, or R² of numbers.
        chosen: Index of the penalty with the best of them (the strongest among equals).
        outputs: Scores of the classes (one number, if the target is one) of each held-out row,
            under a fit that has not seen it.
        weights: Fitted on all fitted rows.
        bias: Their intercepts.
        converged: Whether all fits reached their tolerance.
    """

    cv: Float[Tensor, "site penalty"]
    chosen: Int[Tensor, " site"]
    outputs: Float[Tensor, "site held output"]
    weights: Float[Tensor, "site output d"]
    bias: Float[Tensor, "site output"]
    converged: Bool[Tensor, " site"]


def cross_validate(
    x: Float[Tensor, "site n d"], design: Design, penalties: Sequence[float], probe: ProbeKind
) -> Scored:
    """Cross-validate, choose a penalty per site, refit and score.

    Args:
        x: The rows of the design at each site.
        design: Which of them are fitted and held out.
        penalties: Values of scikit-learn's C, ascending.
        probe: What is fitted.
    """
    left_out: list[tuple[int, ...]] = [(fold,) for fold in range(design.folds)]
    if design.nested:  # a fit without two folds serves as inner fit of either
        left_out += list(combinations(range(design.folds), 2))
    masks = torch.stack([design.without(*out) for out in left_out])
    fits = fit_probes(x, design, penalties, masks, probe)
    said = fits.logits(x)
    good = design.good(said)
    sums = (good[:, : design.folds] * design.in_fold[:, None]).sum((1, 3))  # [site, penalty]
    cv = sums / design.fit.sum()
    chosen = cv.argmax(1)
    final = fit_probes(
        x,
        design,
        torch.tensor(list(penalties))[chosen][:, None],
        design.fit[None].float(),
        probe,
    )
    if design.nested:
        outputs = _nested(said, good, left_out, design.in_fold)
    else:
        outputs = final.logits(x)[:, 0, 0][:, design.held]
    if not design.classes:
        cv = 1 + cv / design.y[design.fit].var(correction=0)
    converged = fits.converged.flatten(1).all(1) & final.converged.flatten(1).all(1)
    return Scored(cv, chosen, outputs, final.weights[:, 0, 0], final.bias[:, 0, 0], converged)


def fit_probes(
    x: Float[Tensor, "site n d"],
    design: Design,
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    weight: Float[Tensor, "resample n"],
    probe: ProbeKind,
    *,
    tol: float = TOL,
) -> LinearFit:
    """Fit a probe to the target of a design, whichever kind that is.

    Raises:
        DataError: If the probe does not read such targets, or is not linear.
    """
    if not probe.linear:
        raise DataError(
            f"A sweep keeps one weight per feature, and the probe {probe.name} is not linear; "
            "choose a linear one."
        )
    if (CLASSES if design.classes else NUMBERS) not in probe.targets:
        reads = " and ".join(probe.targets)
        raise DataError(
            f"{design.target} is {'a label' if design.classes else 'a number'}, and the probe "
            f"{probe.name} reads {reads}; choose {'logistic' if design.classes else 'ridge'}."
        )
    y = design.y if design.classes else design.y[:, None]
    count = len(design.classes) or 1
    found = probe.fit(x, y, penalties, n_classes=count, weight=weight, tol=tol)
    assert isinstance(found, LinearFit)
    return found


def out_of_fold(
    x: Float[Tensor, "site n d"],
    design: Design,
    penalties: Sequence[float] | Float[Tensor, "site 1"],
    probe: ProbeKind,
    *,
    tol: float,
) -> Float[Tensor, "site n"]:
    """How good the fit without a row's fold is on it, at one penalty; 0 of rows in no fold."""
    fits = fit_probes(x, design, penalties, design.without_each, probe, tol=tol)
    return (design.good(fits.logits(x))[:, :, 0] * design.in_fold).sum(1)


def _nested(
    said: Float[Tensor, "site fit penalty n output"],
    good: Float[Tensor, "site fit penalty n"],
    left_out: Sequence[tuple[int, ...]],
    in_fold: Bool[Tensor, "fold n"],
) -> Float[Tensor, "site n output"]:
    """What the fit without a row's fold says of it, its penalty chosen without that fold."""
    outputs = torch.zeros_like(said[:, 0, 0])
    sites = torch.arange(len(said))
    for outer, rows in enumerate(in_fold):
        pairs = [
            (i, sum(out) - outer)
            for i, out in enumerate(left_out)
            if len(out) == 2 and outer in out
        ]
        sums = torch.stack([good[:, i][..., in_fold[inner]].sum(-1) for i, inner in pairs]).sum(0)
        best = sums.argmax(1)  # [site]
        outputs[:, rows] = said[sites, outer, best][:, rows]
    return outputs
