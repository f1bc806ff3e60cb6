"""The rows that the solver of `affectlens.geometry.logistic_solver` reads, laid out for it.

Rows of a site are standardised once; what a fold standardises otherwise is folded into its
weights, so all folds read the same rows, and one matrix product serves them all. Rows that the same
folds use lie together, so none is read for a fold that leaves it out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from affectlens.geometry.linear_fit import principal_axes, standardised

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
