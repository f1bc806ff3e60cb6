"""The solver of `affectlens.geometry.logistic`: all folds of a site at once, penalty after penalty.

Steps are those of L-BFGS, started from an inverse Hessian that is nearly right: as if a row's
features told nothing of how sure its classes are, the Hessian is the mean of ``diag(p) - p p'``
over the rows, times the rows' second moments (Martens and Grosse, 2015). Logits are linear in the
weights, so a line search costs no product. Penalties ascend, and each starts where those before
it lead.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.geometry.logistic_rows import Rules, Sites
from affectlens.geometry.quasi_newton import Pairs

_REFRESH = 2  # steps between two looks at how sure the classes are
_SLIGHT = 0.02  # curvature beside the ridge's that plays no part
_AHEAD = 1.1  # times the last change from penalty to penalty, per log of C: weights gather pace
_NOISE = 1e-12  # of the objective: less than float32 can tell


def solve(
    x: Float[Tensor, "site n d"],
    target: Float[Tensor, "fit class n"],
    weight: Float[Tensor, "fit n"],
    c: Float[Tensor, "site penalty"],
    rules: Rules,
) -> tuple[
    Float[Tensor, "site fit penalty class d"],
    Float[Tensor, "site fit penalty class"],
    Bool[Tensor, "site fit penalty"],
]:
    """Weights and intercepts in raw units, and whether the tolerance was reached."""
    sites = Sites.of(x, target, weight, rules)
    order = c.argsort(1)
    ascending = c.gather(1, order)
    w = x.new_zeros(*sites.mean.shape[:2], target.shape[1], x.shape[2] + 1)
    w[..., -1] = sites.prior
    found, reached = list[Tensor](), list[Tensor]()
    for i, own in enumerate(ascending.T):
        start = w
        if i > 1:
            gone, ahead = ((ascending[:, j] / ascending[:, j - 1]).log() for j in (i - 1, i))
            share = torch.where(gone > 0, _AHEAD * ahead / gone, 0.0)
            start = w + share[:, None, None, None] * (found[-1] - found[-2])
        w, done = Descent(sites, own, rules).run(start)
        found.append(w)
        reached.append(done)
    raw = [sites.raw(one) for one in found]
    middle, spread = sites.back
    weights = torch.stack([one for one, _ in raw], dim=2) / spread[:, None, None]
    bias = torch.stack([one for _, one in raw], dim=2)
    bias = bias - (weights @ middle[:, None, None].mT)[..., 0]
    undo = order.argsort(1)
    each = torch.arange(len(x), device=x.device)[:, None]
    weights, bias, done = (
        t.transpose(1, 2)[each, undo].transpose(1, 2)
        for t in (weights, bias, torch.stack(reached, dim=2))
    )
    return weights, bias, done


class Descent:
    """L-BFGS of all fits at one penalty per site; weights are ``[site, fit, class, d + 1]``."""

    def __init__(self, sites: Sites, c: Float[Tensor, " site"], rules: Rules) -> None:
        self.sites, self.rules = sites, rules
        self.c = c[:, None]

    def run(self, w: Tensor) -> tuple[Tensor, Bool[Tensor, "site fit"]]:
        """From these weights to the tolerance; returns which fits reached it."""
        result, reached = w.clone(), torch.zeros(w.shape[:2], dtype=torch.bool, device=w.device)
        active = torch.arange(w.shape[1], device=w.device)
        for block in self.sites.blocks:
            block.begin(*self.sites.raw(w))
        loss, gradient = self._move(None), self._gradient(w)
        ridge = self._ridge(w, w) / 2
        pairs = Pairs(w)
        for step in range(self.rules.max_iter + 1):
            if step % _REFRESH == 0:
                self._look()
            direction = pairs.direction(gradient, self._inverse)
            slope = (gradient * direction).sum((2, 3))
            value = loss + ridge
            gain = (self.c * self.sites.null - value).clamp_min(0)
            enough = (self.rules.tol**2 * torch.minimum(gain, value)).maximum(_NOISE * value)
            done = slope.abs() / 2 <= enough
            reached[:, active] = done
            left = ~done.all(0)
            if not bool(left.any()) or step == self.rules.max_iter:
                break
            if int(left.sum()) <= 0.75 * len(left):
                result[:, active] = w
                keep = left.nonzero()[:, 0]
                active, self.sites = active[keep], self.sites.keep(keep)
                pairs.keep(keep)
                self.classes, self.shrink, self.free = (
                    t[:, keep] for t in (self.classes, self.shrink, self.free)
                )
                w, gradient, direction, slope, loss, ridge, done = (
                    t[:, keep] for t in (w, gradient, direction, slope, loss, ridge, done)
                )
            direction = direction * ~done[..., None, None]
            taken, loss = self._search(w, direction, slope, loss)
            moved = taken[..., None, None] * direction
            w = w + moved
            ridge = self._ridge(w, w) / 2
            previous, gradient = gradient, self._gradient(w)
            pairs.add(moved, gradient - previous)
        result[:, active] = w
        return result, reached

    def _ridge(self, a: Tensor, b: Tensor) -> Float[Tensor, "site fit"]:
        return self.rules.ridge * (a[..., :-1] * b[..., :-1]).sum((2, 3))

    def _move(self, step: Tensor | None) -> Float[Tensor, "site fit"]:
        total = torch.zeros(self.sites.mean.shape[:2], dtype=torch.float64, device=self.c.device)
        for block in self.sites.blocks:
            total.index_add_(1, block.fits, block.move(step))
        return self.c * total

    def _gradient(self, w: Tensor) -> Tensor:
        gradient = torch.zeros_like(w)
        for block in self.sites.blocks:
            weights, bias = block.gradient()
            gradient[..., :-1].index_add_(1, block.fits, weights)
            gradient[..., -1].index_add_(1, block.fits, bias)
        gradient *= self.c[..., None, None]
        sites = self.sites
        inner = (gradient[..., :-1] - gradient[..., -1:] * sites.mean) / sites.scale
        gradient[..., :-1] = inner + self.rules.ridge * w[..., :-1]
        return gradient

    def _look(self) -> None:
        """How sure the classes are now, and the inverse Hessian that follows."""
        sites = self.sites
        shape = sites.mean.shape[:2]
        k = sites.prior.shape[1]
        told = self.c.new_zeros(*shape, k)
        both = self.c.new_zeros(*shape, k, k)
        for block in sites.blocks:
            one, two = block.sureness()
            told.index_add_(1, block.fits, one)
            both.index_add_(1, block.fits, two)
        curve, self.classes = torch.linalg.eigh(torch.diag_embed(told) - both)
        curve = self.c[..., None] * curve.clamp_min(0)  # [site, fit, class]
        ridge = self.rules.ridge
        steep = curve[..., None] * sites.energy[:, None, None]
        slight = int((steep.amax((0, 1, 2)) <= _SLIGHT * ridge).sum())  # energies ascend
        self.axes = sites.axes[..., slight:]
        self.shrink = 1 / (steep[..., slight:] + ridge) - 1 / ridge
        floor = 1e-6 * self.c[..., None] * sites.total[:, None]  # all intercepts alike: no slope
        self.free = torch.where(curve > floor, 1 / curve.clamp_min(1e-30), 0.0)[..., None]

    def _inverse(self, gradient: Tensor) -> Tensor:
        turned = self.classes.mT @ gradient
        inside = turned[..., :-1].flatten(1, 2) @ self.axes
        inside = inside.unflatten(1, gradient.shape[1:3]).mul_(self.shrink).flatten(1, 2)
        turned[..., :-1] /= self.rules.ridge
        turned[..., :-1] += (inside @ self.axes.mT).unflatten(1, gradient.shape[1:3])
        turned[..., -1:] *= self.free
        return self.classes @ turned

    def _search(
        self, w: Tensor, direction: Tensor, slope: Tensor, loss: Tensor
    ) -> tuple[Float[Tensor, "site fit"], Float[Tensor, "site fit"]]:
        """Newton's step along the direction, backtracked to sufficient decrease, and its loss."""
        raw = self.sites.raw(direction)
        cross, square = self._ridge(w, direction), self._ridge(direction, direction)
        curve = torch.zeros_like(square)
        for block in self.sites.blocks:
            curve.index_add_(1, block.fits, block.turn(*raw))
        curve = self.c * curve + square
        step = torch.where(curve > 0, -slope / curve.clamp_min(1e-30), 0.0).clamp_max(4.0)
        slack = 1e-8 * (loss + self._ridge(w, w) / 2)  # what sums cannot tell apart
        taken = torch.zeros_like(step)
        reached = loss
        for _ in range(12):
            reached, taken = self._move(step - taken), step
            gain = reached - loss + step * cross + step.square() * square / 2
            bad = gain > 1e-4 * step * slope + slack
            if not bool(bad.any()):
                break
            step = torch.where(bad, step / 2, step)
        return taken, reached
