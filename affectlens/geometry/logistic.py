"""Multinomial logistic regression, many problems at once as batched tensor algebra.

The objective is scikit-learn's ``LogisticRegression(C=...)``:

    1/2 ||W||^2 + C sum_i w_i (logsumexp_k(W_k x_i + b_k) - (W_{y_i} x_i + b_{y_i}))

with the intercepts ``b`` unpenalised. Sites, resamplings (folds, halves, bootstraps: row weights)
and values of C are axes of one tensor. Each problem is rotated to the principal axes of its
training rows, where the Hessian at zero is diagonal and known; scaled by it, L-BFGS needs a few
dozen steps. Logits are linear in the weights, so a line search costs no matrix product.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.geometry.linear_fit import (
    LinearFit,
    by_site,
    check_rows,
    principal_axes,
    standardised,
)

_ELEMENTS_PER_CHUNK = 1 << 24  # of the packed training rows: bounds memory, not the result
_HISTORY = 10


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
        tol: Largest relative error of the (standardised) weights; guaranteed by the ridge, which
            bounds the Hessian from below.
        max_iter: Steps before giving up; see `LinearFit.converged`.

    Raises:
        DataError: If a resample lacks a class, or rows are not finite.
    """
    sites, n, d = x.shape
    weight = torch.ones(1, n, device=x.device) if weight is None else weight.to(x.device)
    check_rows(x, y, weight, n_classes)
    c = by_site(penalties, sites, device=x.device)
    index, packed = pack(weight.float())
    resamples, rows = index.shape
    chunk = max(1, _ELEMENTS_PER_CHUNK // (resamples * rows * d))
    parts = [
        _fit_chunk(
            x[start : start + chunk].float(),
            index,
            packed,
            y.to(x.device)[index],
            c[start : start + chunk],
            (n_classes, standardise, tol, max_iter),
        )
        for start in range(0, sites, chunk)
    ]
    weights, bias, converged = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return LinearFit(weights, bias, converged)


def pack(
    weight: Float[Tensor, "resample n"],
) -> tuple[Int[Tensor, "resample rows"], Float[Tensor, "resample rows"]]:
    """Indices of the rows each resample uses, padded with row 0 at weight 0."""
    used = weight > 0
    rows = int(used.sum(1).max())
    index = torch.sort(used.to(torch.int8), dim=1, descending=True, stable=True).indices[:, :rows]
    return index, weight.gather(1, index)


@dataclass(frozen=True, eq=False)
class Rotated:
    """Rows of every site × resample in their principal axes, with a column of ones.

    Attributes:
        z: Standardised rows, zero where a row plays no part.
        weight: Of the rows.
        energy: Of each axis.
        basis: The axes.
        mean, scale: What rows were standardised by.
    """

    z: Float[Tensor, "problem rows r1"]
    weight: Float[Tensor, "problem rows"]
    energy: Float[Tensor, "problem r"]
    basis: Float[Tensor, "problem d r"]
    mean: Float[Tensor, "site resample 1 d"]
    scale: Float[Tensor, "site resample 1 d"]

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "site n d"],
        index: Int[Tensor, "resample rows"],
        weight: Float[Tensor, "resample rows"],
        *,
        standardise: bool = True,
    ) -> Rotated:
        """Of packed rows."""
        rows, mean, scale = standardised(x[:, index], weight, scaled=standardise)
        rows = (rows * (weight > 0)[..., None]).flatten(0, 1)
        own = weight.repeat(len(x), 1)
        basis, energy = principal_axes(rows, own)
        z = torch.cat([rows @ basis, torch.ones_like(rows[..., :1])], dim=-1)
        return cls(z, own, energy, basis, mean, scale)

    def back(
        self, solution: Float[Tensor, "problem column class r1"]
    ) -> tuple[Float[Tensor, "site resample column class d"], Tensor]:
        """Weights and intercepts in the units of the rows."""
        shape = self.mean.shape[:2]
        own = solution.unflatten(0, shape)
        weights = own[..., :-1] @ self.basis.mT.unflatten(0, shape)[:, :, None]
        weights = weights / self.scale[:, :, None]
        return weights, own[..., -1] - (weights @ self.mean[:, :, None].mT)[..., 0]


def _fit_chunk(
    x: Float[Tensor, "site n d"],
    index: Int[Tensor, "resample rows"],
    weight: Float[Tensor, "resample rows"],
    y: Int[Tensor, "resample rows"],
    c: Float[Tensor, "site penalty"],
    options: tuple[int, bool, float, int],
) -> tuple[Tensor, Tensor, Tensor]:
    n_classes, standardise, tol, max_iter = options
    sites, resamples = len(x), len(index)
    rows = Rotated.of(x, index, weight, standardise=standardise)
    each = c.repeat_interleave(resamples, dim=0)
    solver = Solver(rows.z, y.repeat(sites, 1), rows.weight, each, rows.energy, n_classes)
    solution, converged = solver.run(tol, max_iter)  # [problem, class, penalty, r + 1]
    weights, bias = rows.back(solution.transpose(1, 2))
    return (
        weights - weights.mean(-2, keepdim=True),
        bias - bias.mean(-1, keepdim=True),
        converged.unflatten(0, (sites, resamples)),
    )


class Solver:
    """L-BFGS on all problems at once; tensors of weights are [problem, class, penalty, r + 1]."""

    def __init__(
        self,
        z: Float[Tensor, "problem n r1"],
        y: Int[Tensor, "problem n"],
        weight: Float[Tensor, "problem n"],
        c: Float[Tensor, "problem penalty"],
        energy: Float[Tensor, "problem r"],
        n_classes: int,
    ) -> None:
        self.z, self.y, self.weight, self.c, self.n_classes = z, y, weight, c, n_classes
        # scikit-learn has one weight vector for two classes: w = W_1 - W_0, so w^2/2 = ||W||^2.
        self.ridge = 2.0 if n_classes == 2 else 1.0
        curvature = c[..., None] * energy[:, None] / n_classes + self.ridge
        free = c[..., None] * weight.sum(1)[:, None, None] / n_classes
        scale = torch.cat([curvature, free], dim=-1).rsqrt()
        self.scale = scale[:, None]  # [problem, 1, penalty, r + 1]

    def _keep(self, index: Tensor) -> None:
        for name in ("z", "y", "weight", "c", "scale"):
            setattr(self, name, getattr(self, name)[index])

    def _keep_penalties(self, index: Tensor) -> None:
        self.c, self.scale = self.c[:, index], self.scale[:, :, index]

    def _logits(self, w: Tensor) -> Tensor:
        return (w.flatten(1, 2) @ self.z.mT).unflatten(1, w.shape[1:3])

    def _ridge(self, a: Tensor, b: Tensor) -> Float[Tensor, "problem penalty"]:
        return self.ridge * (a[..., :-1] * b[..., :-1]).sum((1, 3))

    def _loss(self, logits: Tensor) -> Float[Tensor, "problem penalty"]:
        target = self.y[:, None, None].expand(-1, 1, logits.shape[2], -1)
        each = logits.logsumexp(1) - logits.gather(1, target)[:, 0]
        return (each * self.weight[:, None]).sum(-1, dtype=torch.float64).float() * self.c

    def _gradient(self, w: Tensor, logits: Tensor) -> Tensor:
        """Gradient with respect to the scaled weights."""
        target = self.y[:, None, None].expand(-1, 1, logits.shape[2], -1)
        residual = logits.softmax(1)
        residual.scatter_add_(1, target, -torch.ones_like(residual[:, :1]))
        residual *= self.weight[:, None, None] * self.c[:, None, :, None]
        gradient = (residual.flatten(1, 2) @ self.z).unflatten(1, w.shape[1:3])
        gradient[..., :-1] += self.ridge * w[..., :-1]
        return gradient * self.scale

    def _reached(self, w: Tensor, gradient: Tensor, tol: float) -> Tensor:
        """Whether weights are within ``tol`` and predicted class shares too.

        The ridge bounds the Hessian from below, so gradient / ridge bounds the weights' error.
        """
        raw = gradient / self.scale
        error = raw[..., :-1].square().sum((1, 3)).sqrt() / self.ridge
        shares = raw[..., -1].abs().amax(1) / (self.c * self.weight.sum(1, keepdim=True))
        return (error <= tol * w[..., :-1].square().sum((1, 3)).sqrt()) & (shares <= tol)

    def run(self, tol: float, max_iter: int) -> tuple[Tensor, Tensor]:
        """Weights of every problem, and which penalties of it reached the tolerance."""
        problems, penalties = self.c.shape
        w = self.z.new_zeros(problems, self.n_classes, penalties, self.z.shape[-1])
        result, done_all = w.clone(), torch.zeros_like(self.c, dtype=torch.bool)
        active = torch.arange(problems, device=w.device)
        columns = torch.arange(penalties, device=w.device)  # strong ones are done long before weak
        logits = self._logits(w)
        gradient = self._gradient(w, logits)
        pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_HISTORY)
        for _ in range(max_iter):
            done = self._reached(w, gradient, tol)
            done_all[active[:, None], columns] = done
            if bool(done.all()):
                break
            left = ~done.all(0)
            if int(left.sum()) <= 0.75 * len(left):
                result[active[:, None], :, columns] = w.transpose(1, 2)
                keep = left.nonzero()[:, 0]
                self._keep_penalties(keep)
                columns, done = columns[keep], done[:, keep]
                w, logits, gradient = (t[:, :, keep] for t in (w, logits, gradient))
                pairs = deque(
                    ((s[:, :, keep], v[:, :, keep], r[:, keep]) for s, v, r in pairs),
                    maxlen=_HISTORY,
                )
            running = ~done.all(1)
            if int(running.sum()) <= 0.75 * len(running):
                result[active[:, None], :, columns] = w.transpose(1, 2)
                keep = running.nonzero()[:, 0]
                self._keep(keep)
                active, w, logits, gradient, done = (
                    t[keep] for t in (active, w, logits, gradient, done)
                )
                pairs = deque(((s[keep], v[keep], r[keep]) for s, v, r in pairs), maxlen=_HISTORY)
            direction = self._two_loop(gradient, pairs) * ~done[:, None, :, None]
            step, moved = self._search(w, logits, gradient, direction)
            taken = step[:, None, :, None] * direction
            w = w + taken * self.scale
            logits = logits + step[:, None, :, None] * moved
            previous, gradient = gradient, self._gradient(w, logits)
            change = gradient - previous
            curvature = (taken * change).sum((1, 3))
            useful = curvature > 1e-8 * change.square().sum((1, 3))
            pairs.append((taken, change, torch.where(useful, 1 / curvature, 0.0)))
        result[active[:, None], :, columns] = w.transpose(1, 2)
        return result, done_all

    def _two_loop(self, gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        def dot(a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum((1, 3), keepdim=True)

        q, alphas = gradient, list[Tensor]()
        for s, v, rho in reversed(pairs):
            alphas.append(rho[:, None, :, None] * dot(s, q))
            q = q - alphas[-1] * v
        if pairs:
            s, v, rho = pairs[-1]
            length = dot(v, v)
            gamma = torch.where(rho[:, None, :, None] > 0, dot(s, v) / length.clamp_min(1e-30), 1.0)
            q = q * gamma
        for (s, v, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + s * (alpha - rho[:, None, :, None] * dot(v, q))
        return -q

    def _search(
        self, w: Tensor, logits: Tensor, gradient: Tensor, direction: Tensor
    ) -> tuple[Float[Tensor, "problem penalty"], Tensor]:
        """Backtrack each problem to sufficient decrease; returns steps and the logits' change."""
        raw = direction * self.scale
        moved = self._logits(raw)
        slope = (gradient * direction).sum((1, 3))
        start, cross, square = self._loss(logits), self._ridge(w, raw), self._ridge(raw, raw)
        slack = 1e-6 * (start.abs() + self._ridge(w, w))  # what float32 cannot tell apart
        step = torch.ones_like(slope)
        for _ in range(12):
            loss = self._loss(logits + step[:, None, :, None] * moved)
            gain = loss - start + step * cross + 0.5 * step.square() * square
            bad = gain > 1e-4 * step * slope + slack
            if not bool(bad.any()):
                break
            step = torch.where(bad, step / 2, step)
        return step, moved
