"""Grouped, nested cross-validation of probes: penalties are chosen on folds nobody is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from affectlens.activations.store.store import ActivationStore
from affectlens.core.errors import DataError, unknown
from affectlens.geometry.linear_fit import LinearFit
from affectlens.probes.estimators import ProbeKind
from affectlens.probes.folds import assign_folds, group_ids

_TOL = 1e-3
_CV_TOL = 1e-2  # a probe that is 1 % off chooses the same penalty


@dataclass(frozen=True, eq=False)
class Design:
    """Which rows are fitted and scored, the same at every site.

    Attributes:
        classes: Labels.
        rows: Rows of the store that have one of them; what follows counts within these.
        y: Class of each row.
        fit: Whether a row is fitted on.
        fold: Fold of each fitting row, -1 for the others.
        folds: How many.
        nested: Whether the held-out rows are those of the outer folds.
        held_groups: Scenario of each held-out row.
    """

    classes: tuple[str, ...]
    rows: Int[Tensor, " rows"]
    y: Int[Tensor, " n"]
    fit: Bool[Tensor, " n"]
    fold: Int[Tensor, " n"]
    folds: int
    nested: bool
    held_groups: list[str]

    @property
    def held(self) -> Bool[Tensor, " n"]:
        """Whether a row is scored in the end."""
        return self.fit if self.nested else ~self.fit

    def majority(self) -> float:
        """Share of held-out rows in the class most frequent in the fitting rows."""
        top = self.y[self.fit].mode().values
        return float((self.y[self.held] == top).float().mean())

    def without(self, *left_out: int) -> Float[Tensor, " n"]:
        """Weights of the rows with some folds left out."""
        return (self.fit & ~torch.isin(self.fold, torch.tensor(left_out))).float()


def make_design(
    store: ActivationStore, classes: Sequence[str] | None, position: str, folds: int, seed: int
) -> Design:
    """Decide what is fitted and what is held out; see `affectlens.probes.sweep.sweep`.

    Raises:
        DataError: If there are fewer than two classes, too few scenarios, or scenarios in the test
            split and outside it.
        UnknownNameError: If a class does not occur.
    """
    labels: list[Any] = store.column("emotion", position)
    found = set(labels)
    names = tuple(classes if classes is not None else (t for t in store.label_set if t in found))
    for name in names:
        if name not in found:
            raise unknown("class", name, sorted(str(label) for label in found if label))
    if len(set(names)) != len(names) or len(names) < 2:
        raise DataError(f"A probe needs at least two different classes, not {list(names)}.")
    rows = [i for i, label in enumerate(labels) if label in names]
    y = torch.tensor([names.index(labels[i]) for i in rows])
    splits, all_groups = store.column("split", position), store.column("scenario", position)
    groups = [str(all_groups[i]) for i in rows]
    test = torch.tensor([splits[i] == "test" for i in rows])
    nested = bool(test.all()) or not bool(test.any())
    fit = torch.ones_like(test) if nested else ~test
    shared = {g for g, t in zip(groups, test, strict=True) if t}.intersection(
        g for g, t in zip(groups, test, strict=True) if not t
    )
    if shared:
        raise DataError(
            f"{len(shared)} scenarios lie in the test split and outside it ({min(shared)}); "
            "split by scenario."
        )
    fold = torch.full_like(y, -1)
    fitted = [g for g, used in zip(groups, fit, strict=True) if used]
    fold[fit] = assign_folds(group_ids(fitted), folds, seed)
    held = [g for g, used in zip(groups, fit if nested else ~fit, strict=True) if used]
    return Design(names, torch.tensor(rows), y, fit, fold, folds, nested, held)


@dataclass(frozen=True, eq=False)
class Scored:
    """Probes of some sites and how they did.

    Attributes:
        cv_accuracy: On the folds, per penalty.
        chosen: Index of the penalty with the best of them (the strongest among equals).
        correct: Which held-out rows are right.
        weights: Fitted on all fitting rows.
        bias: Their intercepts.
        converged: Whether all fits reached their tolerance.
    """

    cv_accuracy: Float[Tensor, "site penalty"]
    chosen: Int[Tensor, " site"]
    correct: Bool[Tensor, "site held"]
    weights: Float[Tensor, "site class d"]
    bias: Float[Tensor, "site class"]
    converged: bool


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
    n_classes = len(design.classes)
    masks = torch.stack([design.without(*out) for out in left_out])
    fits = probe.fit(x, design.y, penalties, n_classes=n_classes, weight=masks, tol=_CV_TOL)
    right = _right(fits, x, design.y)
    in_fold = torch.stack([design.fold == fold for fold in range(design.folds)])
    hits = (right[:, : design.folds] & in_fold[:, None]).sum((1, 3))  # [site, penalty]
    cv = hits / design.fit.sum()
    chosen = cv.argmax(1)
    final = probe.fit(
        x,
        design.y,
        torch.tensor(list(penalties))[chosen][:, None],
        n_classes=n_classes,
        weight=design.fit[None].float(),
        tol=_TOL,
    )
    if design.nested:
        correct = _nested(right, left_out, in_fold)
    else:
        correct = _right(final, x, design.y)[:, 0, 0][:, design.held]
    converged = bool(fits.converged.all() & final.converged.all())
    return Scored(cv, chosen, correct, final.weights[:, 0, 0], final.bias[:, 0, 0], converged)


def _nested(
    right: Bool[Tensor, "site fit penalty n"],
    left_out: Sequence[tuple[int, ...]],
    in_fold: Bool[Tensor, "fold n"],
) -> Bool[Tensor, "site n"]:
    """Whether each row is right under the fit without its fold, its penalty chosen without it."""
    correct = torch.zeros_like(right[:, 0, 0])
    for outer, rows in enumerate(in_fold):
        pairs = [
            (i, sum(out) - outer)
            for i, out in enumerate(left_out)
            if len(out) == 2 and outer in out
        ]
        hits = torch.stack([right[:, i][..., in_fold[inner]].sum(-1) for i, inner in pairs]).sum(0)
        best = hits.argmax(1)  # [site]
        outer_right = right[torch.arange(len(right)), outer, best]
        correct[:, rows] = outer_right[:, rows]
    return correct


def _right(
    fits: LinearFit, x: Float[Tensor, "site n d"], y: Int[Tensor, " n"]
) -> Bool[Tensor, "site fit penalty n"]:
    """Whether each fit is right about each row."""
    return fits.logits(x).argmax(-1) == y
