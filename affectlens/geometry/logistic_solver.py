"""The solver of `affectlens.geometry.logistic`: all folds of a site at once, penalty after penalty.

Rows of a site are standardised once; what a fold standardises otherwise is folded into its
weights, so all folds read the same rows and a step is one matrix product for all of them. Rows
that the same folds use lie together, so none is read for a fold that leaves it out.

Steps are those of L-BFGS in the compact form of Byrd, Nocedal and Schnabel (1994), started from an
inverse Hessian that is nearly right: as if a row's features told nothing of how sure its classes
are, the Hessian is the mean of ``diag(p) - p p'`` over the rows, times the rows' second moments
(Martens and Grosse, 2015). Logits are linear in the weights, so a line search costs no product.
Penalties ascend, and each starts where those before it lead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from affectlens.geometry.linear_fit import principal_axes, standardised

_HISTORY = 6
_REFRESH = 2  # steps between two looks at how sure the classes are
_SLIGHT = 0.02  # curvature beside the ridge's that plays no part
_AHEAD = 0.7  # of the last change from penalty to penalty, per log of C
_PATTERNS = 32  # more ways to choose rows than these (bootstraps): every fit reads all of them
_ROWS_AT_ONCE = 1024  # on a CPU: what its cache holds


@dataclass(frozen=True)
class Rules:
    """What is fitted, and how well.

    Attributes:
        reference: Whether there is one more class, whose logit is always zero.
        ridge: Factor of ``||W||^2 / 2``.
        standardise: Whether features are scaled to variance 1 in each fit's rows.
        tol: See `affectlens.geometry.logistic.fit_logistic`.
        max_iter: Steps at each penalty before giving up.
    """

    reference: bool
    ridge: float
    standardise: bool
    tol: float
    max_iter: int


class Block:
    """Rows that the same fits use, and what these say of them, ``[site, fit, class, row]``."""

    def __init__(
        self,
        rows: Float[Tensor, "site row d"],
        fits: Int[Tensor, " fit"],
        weight: Float[Tensor, "fit row"],
        target: Float[Tensor, "fit class row"],
        reference: bool,
    ) -> None:
        self.rows, self.fits, self.weight, self.target = rows, fits, weight, target
        self.reference = reference
        self.logits = self.change = self.chance = rows.new_zeros(0)

    def begin(self, w: Tensor, b: Tensor) -> None:
        """Take up weights in the units of the rows."""
        self.logits = self._said(w, b)

    def turn(self, w: Tensor, b: Tensor) -> Float[Tensor, "site fit"]:
        """Take up a direction; returns how the loss curves along it."""
        self.change = self._said(w, b)
        first = self.chance * self.change
        second = (first * self.change).sum(2)
        return second.sub_(first.sum(2).square_()).mul_(self.weight).sum(-1)

    def move(self, step: Float[Tensor, "site fit"] | None) -> Float[Tensor, "site fit"]:
        """Go along the direction; returns the loss there, in double precision."""
        if step is not None:
            self.logits.addcmul_(step[:, self.fits, None, None], self.change)
        if self.reference:
            self.chance = self.logits.sigmoid()
            lost = (softplus(self.logits) - self.logits * self.target)[:, :, 0]
        else:
            logs = self.logits.log_softmax(2)
            self.chance = logs.exp()
            lost = logs.mul_(self.target).sum(2).neg_()
        return lost.mul_(self.weight).sum(-1, dtype=torch.float64)

    def gradient(self) -> tuple[Float[Tensor, "site fit class d"], Float[Tensor, "site fit class"]]:
        """Of the loss, by weights and intercepts in the units of the rows."""
        residual = (self.chance - self.target).mul_(self.weight[:, None])
        return (residual.flatten(1, 2) @ self.rows).unflatten(1, residual.shape[1:3]), (
            residual.sum(-1)
        )

    def sureness(self) -> tuple[Float[Tensor, "site fit class"], Float[Tensor, "site fit class k"]]:
        """Sums of ``p`` and of ``p p'``."""
        weighted = self.chance * self.weight[:, None]
        return weighted.sum(-1), weighted @ self.chance.mT

    def keep(self, left: Int[Tensor, " left"], place: Int[Tensor, " fit"]) -> Block:
        """With those fits alone that are left, by their new numbers."""
        mine = torch.isin(self.fits, left)
        kept = Block(
            self.rows,
            place[self.fits[mine]],
            self.weight[mine],
            self.target[mine] if len(self.target) > 1 else self.target,
            self.reference,
        )
        kept.logits, kept.chance = self.logits[:, mine], self.chance[:, mine]
        return kept

    def _said(self, w: Tensor, b: Tensor) -> Tensor:
        said = w[:, self.fits].flatten(1, 2) @ self.rows.mT
        return said.unflatten(1, (len(self.fits), -1)).add_(b[:, self.fits, :, None])


@dataclass(frozen=True, eq=False)
class Sites:
    """Rows of some sites, standardised, and what their fits have in common.

    Attributes:
        blocks: The rows.
        axes: Their principal axes.
        energy: Mean square along each.
        mean, scale: What each fit standardises by, in units of these rows.
        total: Weight of each fit's rows.
        prior: Intercepts alone that fit best.
        null: Loss of these.
        back: Mean and scale of the rows in raw units.
    """

    blocks: list[Block]
    axes: Float[Tensor, "site d r"]
    energy: Float[Tensor, "site r"]
    mean: Float[Tensor, "site fit 1 d"]
    scale: Float[Tensor, "site fit 1 d"]
    total: Float[Tensor, " fit"]
    prior: Float[Tensor, "fit class"]
    null: Float[Tensor, " fit"]
    back: tuple[Float[Tensor, "site 1 d"], Float[Tensor, "site 1 d"]]

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "site n d"],
        target: Float[Tensor, "fit class n"],
        weight: Float[Tensor, "fit n"],
        rules: Rules,
    ) -> Sites:
        """Lay out rows; ``target`` may be one for all fits."""
        used = (weight > 0).any(0)
        if not bool(used.all()):
            x, target, weight = x[:, used], target[..., used], weight[:, used]
        rows, middle, spread = standardised(
            x, weight.new_ones(len(x), weight.shape[1]), scaled=rules.standardise
        )
        axes, energy = principal_axes(rows, rows.new_ones(rows.shape[:2]))
        blocks = [
            Block(
                rows[:, own],
                fits,
                weight[fits[:, None], own],
                target[fits][..., own] if len(target) > 1 else target[..., own],
                rules.reference,
            )
            for own, fits in _patterns(weight)
        ]
        total = weight.sum(1)
        mean, scale = _moments(blocks, total, rules.standardise)
        share = (target * weight[:, None]).sum(-1) / total[:, None]
        prior = share.logit() if rules.reference else share.log()
        null = -(total[:, None] * torch.xlogy(share, share)).sum(1)
        if rules.reference:
            null -= (total[:, None] * torch.xlogy(1 - share, 1 - share)).sum(1)
        energy = energy / rows.shape[1]
        return cls(blocks, axes, energy, mean, scale, total, prior, null.double(), (middle, spread))

    def raw(self, w: Float[Tensor, "site fit class d1"]) -> tuple[Tensor, Tensor]:
        """Weights and intercepts in units of the rows, of those that standardise by fit."""
        weights = w[..., :-1] / self.scale
        return weights, w[..., -1] - (weights * self.mean).sum(-1)

    def keep(self, left: Int[Tensor, " left"]) -> Sites:
        """With those fits alone that are left."""
        place = torch.full((len(self.total),), -1, device=left.device)
        place[left] = torch.arange(len(left), device=left.device)
        return Sites(
            [kept for block in self.blocks if len((kept := block.keep(left, place)).fits)],
            self.axes,
            self.energy,
            self.mean[:, left],
            self.scale[:, left],
            self.total[left],
            self.prior[left],
            self.null[left],
            self.back,
        )


def _patterns(
    weight: Float[Tensor, "fit n"],
) -> list[tuple[Int[Tensor, " row"], Int[Tensor, " fit"]]]:
    """Rows that the same fits use, and these."""
    used, which = torch.unique(weight > 0, dim=1, return_inverse=True)
    if used.shape[1] > _PATTERNS:
        used, which = used.new_ones(len(used), 1), torch.zeros_like(which)
    step = _ROWS_AT_ONCE if weight.device.type == "cpu" else weight.shape[1]
    return [
        (rows, fits.nonzero()[:, 0])
        for i, fits in enumerate(used.mT)
        for rows in (which == i).nonzero()[:, 0].split(step)
    ]


def _moments(
    blocks: list[Block], total: Float[Tensor, " fit"], scaled: bool
) -> tuple[Float[Tensor, "site fit 1 d"], Float[Tensor, "site fit 1 d"]]:
    """Mean and deviation of each fit's rows, as `standardised` has them."""
    sites, _, d = blocks[0].rows.shape
    sums = torch.zeros(2, sites, len(total), d, dtype=torch.float64, device=total.device)
    for block in blocks:
        rows, weight = block.rows.double(), block.weight.double()
        sums[0].index_add_(1, block.fits, weight @ rows)
        sums[1].index_add_(1, block.fits, weight @ rows.square())
    mean, square = sums / total[:, None]
    deviation = (square - mean.square()).clamp_min(0).sqrt()
    constant = deviation <= 1e-6 * mean.abs() + 1e-12
    scale = torch.where(constant, 1.0, deviation) if scaled else torch.ones_like(mean)
    return mean.float()[:, :, None], scale.float()[:, :, None]


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
    w = torch.cat([x.new_zeros(*sites.mean.shape[:2], target.shape[1], x.shape[2]),
                   sites.prior.expand(len(x), -1, -1)[..., None]], dim=-1)  # fmt: skip
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
            done = -slope / 2 <= self.rules.tol**2 * torch.minimum(gain, value)
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
        told = (steep.amax((0, 1, 2)) > _SLIGHT * ridge).sum()  # energies ascend
        self.axes = sites.axes[..., len(sites.energy.T) - told :]
        self.shrink = 1 / (steep[..., len(sites.energy.T) - told :] + ridge) - 1 / ridge
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


class Pairs:
    """The last steps and the changes of the gradient along them, each in the oldest's place.

    A pair that does not count is zero, with 1 as its own product.
    """

    def __init__(self, w: Tensor) -> None:
        self.steps = w.new_zeros(*w.shape[:2], _HISTORY, w[0, 0].numel())
        self.changes = torch.zeros_like(self.steps)
        self.products = torch.eye(_HISTORY, device=w.device).repeat(*w.shape[:2], 1, 1)
        self.order = list(range(_HISTORY))  # oldest first

    def keep(self, left: Tensor) -> None:
        """Go on with some fits."""
        self.steps, self.changes, self.products = (
            t[:, left] for t in (self.steps, self.changes, self.products)
        )

    def add(self, step: Tensor, change: Tensor) -> None:
        """Take in one more."""
        step, change = step.flatten(2), change.flatten(2)
        own = (step * change).sum(-1)
        useful = own > 1e-8 * change.square().sum(-1)
        place = self.order.pop(0)
        self.order.append(place)
        self.steps[:, :, place] = step * useful[..., None]
        self.changes[:, :, place] = change * useful[..., None]
        column = self.changes[:, :, place, None] @ self.steps.mT
        self.products[..., place] = column[:, :, 0]
        self.products[..., place, place] = torch.where(useful, own, 1.0)

    def direction(
        self, gradient: Tensor, inverse: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "site fit class d1"]:
        """Downhill: the inverse Hessian that the pairs and ``inverse`` make, on the gradient."""
        flat = gradient.flatten(2)[:, :, None]
        # Row vectors: a matrix times a column is many times slower in batches.
        along = (flat @ self.steps.mT).mT[:, :, self.order]
        products = self.products[:, :, self.order][..., self.order].triu()
        back = sorted(range(_HISTORY), key=self.order.__getitem__)
        alpha = torch.linalg.solve_triangular(products, along, upper=True)
        inner = inverse((flat - alpha[:, :, back].mT @ self.changes).view_as(gradient))
        right = products.diagonal(dim1=2, dim2=3)[..., None] * alpha
        changed = (inner.flatten(2)[:, :, None] @ self.changes.mT).mT
        right = right - changed[:, :, self.order]
        beta = torch.linalg.solve_triangular(products.mT, right, upper=False)
        return -(inner + (beta[:, :, back].mT @ self.steps).view_as(gradient))
