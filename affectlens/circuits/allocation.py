"""How many units each sublayer gives to a circuit: a budget split by influence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.circuits.units import there_only
from affectlens.core.errors import DataError


@dataclass(frozen=True)
class Budget:
    """How many units one emotion's circuit has, and how they may be spread.

    The defaults are the published setting, scaled to the model: 28 layers give 560 units, 392
    neurons and 168 heads (arXiv 2510.11328 §6). Two rules are ours, for models with few heads:
    `max_share` bounds a kind's total, and a floor larger than an even spread is lowered to it.

    Attributes:
        total: Units per emotion; None means `per_sublayer` times the number of sublayers.
        per_sublayer: Units per sublayer on average, where `total` is None.
        neuron_share: Share of the total spent on neurons; the others are heads.
        floor_neurons: Neurons every MLP gives at least.
        floor_heads: Heads every attention gives at least.
        cap: Largest share of a kind's units that one sublayer may hold.
        max_share: Largest share of the model's units of a kind that a circuit may hold.
    """

    total: int | None = None
    per_sublayer: float = 10.0
    neuron_share: float = 0.7
    floor_neurons: int = 4
    floor_heads: int = 2
    cap: float = 0.4
    max_share: float = 0.5

    def __post_init__(self) -> None:
        if self.total is not None and self.total < 0:
            raise DataError(f"Budget.total must not be negative; got {self.total}.")
        if self.per_sublayer < 0:
            raise DataError(f"Budget.per_sublayer must not be negative; got {self.per_sublayer}.")
        if min(self.floor_neurons, self.floor_heads) < 0:
            raise DataError("Budget.floor_neurons and floor_heads must not be negative.")
        for name in ("neuron_share", "cap", "max_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise DataError(f"Budget.{name} is a share; give a number from 0 to 1.")

    def split(self, sizes: Int[Tensor, "layer 2"]) -> tuple[int, int]:
        """Heads and neurons per emotion in a model with so many of each, after `max_share`.

        Args:
            sizes: Heads and neurons of each layer; a layer that has none of a kind is no sublayer.
        """
        total = self.total
        if total is None:
            total = round(self.per_sublayer * int((sizes > 0).sum()))
        neurons = round(self.neuron_share * total)
        heads = total - neurons
        all_heads, all_neurons = sizes.sum(0).tolist()
        return (
            min(heads, math.floor(self.max_share * all_heads)),
            min(neurons, math.floor(self.max_share * all_neurons)),
        )


def share_out(
    weights: Sequence[float], total: int, *, sizes: Sequence[int], floor: int, cap: int
) -> list[int]:
    """Split `total` units over sublayers in proportion to `weights`, by largest remainder.

    Every sublayer gets its floor; the rest is proportional; what a full sublayer cannot take is
    back-filled into the others. Equal remainders go to the earlier sublayer.

    Args:
        weights: One per sublayer; negative ones count as 0; all 0 means an even spread.
        total: Units to place; at most as many as there are.
        sizes: Units that exist in each sublayer; 0 where there is none.
        floor: Units each gets at least; lowered to an even spread where the total is smaller.
        cap: Units each gets at most; raised to an even spread (or the floor) where the total
            could not be placed otherwise.

    Returns:
        One count per sublayer; they sum to `total`.

    Raises:
        DataError: If a weight is not finite or more units are wanted than exist.
    """
    there = sum(size > 0 for size in sizes)
    if not all(math.isfinite(w) for w in weights):
        raise DataError("The influence holds NaN or infinity; check the directions and the model.")
    if total > sum(sizes):
        raise DataError(f"Cannot place {total} units where there are {sum(sizes)}.")
    if total == 0:
        return [0] * len(sizes)
    floor = min(floor, total // there)
    caps = [min(size, max(cap, floor, _even_spread(sizes, total))) for size in sizes]
    counts = [min(floor, size) for size in sizes]
    positive = [Fraction(max(float(w), 0.0)) for w in weights]  # exact: no rounding, no ties missed
    left = total - sum(counts)
    while left > 0:
        room = [i for i, most in enumerate(caps) if counts[i] < most]
        share = [positive[i] for i in room]
        if not any(share):  # only sublayers without influence have room left
            share = [Fraction(1)] * len(room)
        for i, wanted in zip(room, _largest_remainder(share, left), strict=True):
            taken = min(wanted, caps[i] - counts[i])
            counts[i] += taken
            left -= taken
    return counts


def _even_spread(sizes: Sequence[int], total: int) -> int:
    """The smallest cap under which so many units can be placed."""
    left, cap = total, 0
    ordered = sorted(size for size in sizes if size)
    for i, size in enumerate(ordered):
        cap = math.ceil(left / (len(ordered) - i))
        if cap <= size:
            return cap
        left -= size
    return cap


def _largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    whole = sum(shares, Fraction(0))
    quotas = [s * total / whole for s in shares]
    counts = [math.floor(q) for q in quotas]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - quotas[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def allocate(
    influence: Float[Tensor, "emotion layer 2"], budget: Budget, sizes: Int[Tensor, "layer 2"]
) -> Int[Tensor, "emotion layer 2"]:
    """Units per emotion and sublayer.

    Args:
        influence: Sublayer influence, (attention, MLP) on the last axis; negative is clipped.
        budget: How many, and the rules.
        sizes: Heads and neurons that each layer has; see `affectlens.circuits.units.unit_sizes`.

    Returns:
        Counts, (heads, neurons) on the last axis; they sum to ``budget.split(sizes)`` per emotion.

    Raises:
        DataError: If the influence is not finite.

    Source: arXiv 2510.11328 §6.
    """
    totals = budget.split(sizes)
    floors = (budget.floor_heads, budget.floor_neurons)
    counts = torch.zeros(len(influence), *sizes.shape, dtype=torch.long)
    for kind, total in enumerate(totals):
        cap = math.floor(budget.cap * total)
        there = [int(size) for size in sizes[:, kind]]
        for e, profile in enumerate(influence):
            weights = profile[:, kind].double().tolist()
            counts[e, :, kind] = torch.tensor(
                share_out(weights, total, sizes=there, floor=floors[kind], cap=cap)
            )
    return counts


def uniform_allocation(
    n_emotions: int, budget: Budget, sizes: Int[Tensor, "layer 2"]
) -> Int[Tensor, "emotion layer 2"]:
    """The same budget spread evenly over the layers: the control for the split by influence."""
    return allocate(torch.zeros(n_emotions, *sizes.shape), budget, sizes)


def top_k_allocation(
    neuron_scores: Float[Tensor, "emotion layer d_mlp"],
    head_scores: Float[Tensor, "emotion layer n_heads"],
    budget: Budget,
    sizes: Int[Tensor, "layer 2"],
) -> Int[Tensor, "emotion layer 2"]:
    """The counts that the naive choice implies: the highest scores of the whole model."""
    totals = budget.split(sizes)
    counts = torch.zeros(len(head_scores), *sizes.shape, dtype=torch.long)
    for kind, scores in enumerate((head_scores, neuron_scores)):
        counts[..., kind] = highest(there_only(scores, sizes[:, kind]), totals[kind])
    return counts


def highest(
    ranking: Float[Tensor, "emotion layer unit"], count: int
) -> Int[Tensor, "emotion layer"]:
    """How many of the highest of the whole model lie in each layer; equal ones by index."""
    _, n_layers, size = ranking.shape
    order = ranking.flatten(1).sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.stack([torch.bincount(row, minlength=n_layers) for row in (order // size).cpu()])
