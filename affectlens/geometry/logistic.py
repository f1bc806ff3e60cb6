"""Multinomial logistic regression, many problems at once as batched tensor algebra.

The objective is scikit-learn's ``LogisticRegression(C=...)``:

    1/2 ||W||^2 + C sum_i w_i (logsumexp_k(W_k x_i + b_k) - (W_{y_i} x_i + b_{y_i}))

with the intercepts ``b`` unpenalised. Resamplings (folds, halves, bootstraps: row weights) of a
site are fitted together; see `affectlens.geometry.logistic_solver`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from affectlens.geometry.linear_fit import LinearFit, by_site, check_rows
from affectlens.geometry.logistic_rows import Rules
from affectlens.geometry.logistic_solver import solve

_ELEMENTS_PER_CHUNK = 1 << 21  # of rows: what is fitted together, more costs more memory


def fit_logistic(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    *,
    n_classes: int,
    weight: Float[Tensor, "resample n"] | None = None,
    standardise: bool = True,
    tol: float = 1e-3,
    max_iter: int = 300,
) -> LinearFit:
    """Fit every site × resample × penalty.

    Args:
        x: Rows; sites share their labels.
        y: Class of each row, ``0 .. n_classes - 1``.
        penalties: Values of scikit-learn's ``C`` (inverse strength of L2), the same for all sites
            or one row of them per site.
        n_classes: Number of classes, at least two.
        weight: Weight of each row per resample; rows of weight 0 play no part. All ones if absent.
        standardise: Scale the features of each resample's rows to mean 0 and variance 1 before the
            fit, as ``StandardScaler`` does; the result is in raw units all the same.
        tol: Relative error of the weights, about: a fit stops when its objective is estimated
            (half of Newton's decrement) to be within ``tol ** 2`` of the optimum, relative to
            itself and to what the features have gained over intercepts alone.
        max_iter: Steps at a penalty before giving up; see `LinearFit.converged`.

    Raises:
        DataError: If a resample lacks a class, or rows are not finite.
    """
    weight = torch.ones(1, x.shape[1], device=x.device) if weight is None else weight.to(x.device)
    check_rows(x, y, weight, n_classes)
    target = one_hot(y.to(x.device).long(), n_classes).T[None].float()
    # scikit-learn has one weight vector for two classes: w = W_1 - W_0, so w^2/2 = ||W||^2.
    ridge = 2.0 if n_classes == 2 else 1.0
    rules = Rules(False, ridge, standardise, tol, max_iter)
    weights, bias, converged = in_chunks(x, target, weight, penalties, rules)
    return LinearFit(
        weights - weights.mean(-2, keepdim=True), bias - bias.mean(-1, keepdim=True), converged
    )


def in_chunks(
    x: Float[Tensor, "site n d"],
    target: Float[Tensor, "fit class n"],
    weight: Float[Tensor, "fit n"],
    penalties: Sequence[float] | Float[Tensor, "site penalty"],
    rules: Rules,
) -> tuple[Tensor, Tensor, Tensor]:
    """What `solve` returns, a few sites at a time."""
    c = by_site(penalties, len(x), device=x.device)
    chunk = max(1, _ELEMENTS_PER_CHUNK // x[0].numel())
    parts = [
        solve(x[i : i + chunk].float(), target, weight.float(), c[i : i + chunk], rules)
        for i in range(0, len(x), chunk)
    ]
    weights, bias, converged = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return weights, bias, converged
