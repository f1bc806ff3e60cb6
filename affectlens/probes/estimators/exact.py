"""Kinds of probes that follow from moments of the rows: one exact solution, no steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.core.errors import DataError
from affectlens.geometry.linear_fit import LinearFit, by_site, check_rows
from affectlens.probes.estimators.moments import RowMoments, site_moments

Solve = Callable[[RowMoments, Float[Tensor, " penalty"], bool], LinearFit]
"""The probes of one site from its moments, at each penalty; whether the targets are classes."""


def exactly(solve: Solve) -> Callable[..., LinearFit]:
    """A `affectlens.probes.estimators.base.Fit` of every site from its moments.

    ``tol`` plays no part: the solution is exact.
    """

    def fit(
        x: Float[Tensor, "site n d"],
        y: Int[Tensor, " n"] | Float[Tensor, "n target"],
        penalties: Sequence[float] | Float[Tensor, "site penalty"],
        *,
        n_classes: int,
        weight: Float[Tensor, "resample n"],
        tol: float = 0.0,
    ) -> LinearFit:
        del tol
        target = targets_of(x, y, n_classes, weight)
        c = by_site(penalties, len(x), dtype=torch.float64)
        fits = [
            solve(moments, own, not y.is_floating_point())
            for moments, own in zip(site_moments(x, target, weight), c, strict=True)
        ]
        return LinearFit(
            *(
                torch.cat([getattr(fit, name) for fit in fits]).to(x.device)
                for name in ("weights", "bias", "converged")
            )
        )

    return fit


def targets_of(
    x: Float[Tensor, "site n d"],
    y: Int[Tensor, " n"] | Float[Tensor, "n target"],
    n_classes: int,
    weight: Float[Tensor, "resample n"],
) -> Float[Tensor, "n target"]:
    """Classes (whole numbers) as one-hot rows; numbers (floating point) as they are.

    Raises:
        DataError: If a resample lacks a class, or anything is not finite.
    """
    if not y.is_floating_point():
        check_rows(x, y, weight, n_classes)
        return torch.nn.functional.one_hot(y.cpu().long(), n_classes).double()
    if not bool(y.isfinite().all()):
        raise DataError("A target holds NaN or infinity; leave out the rows without a number.")
    return y.double().cpu().reshape(len(y), -1)


def as_fit(
    moments: RowMoments,
    weights: Float[Tensor, "resample penalty class d"],
    bias: Float[Tensor, "resample penalty class"],
    *,
    classes: bool,
) -> LinearFit:
    """One site's solution; scores of classes are made to sum to zero."""
    if classes:
        weights = weights - weights.mean(-2, keepdim=True)
        bias = bias - bias.mean(-1, keepdim=True)
    converged = torch.ones(weights.shape[:2], dtype=torch.bool, device=weights.device)
    return LinearFit(weights[None].to(moments.dtype), bias[None].to(moments.dtype), converged[None])
