"""How many units each sublayer gives to a circuit: a budget split by influence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

    def split(self, n_layers: int, n_heads: int, d_mlp: int) -> tuple[int, int]:
        """Heads and neurons per emotion in a model of that size, after `max_share`."""
        total = self.total
        if total is None:
            total = round(self.per_sublayer * 2 * n_layers)
        neurons = round(self.neuron_share * total)
        heads = total - neurons
        return (
            min(heads, math.floor(self.max_share * n_heads * n_layers)),
            min(neurons, math.floor(self.max_share * d_mlp * n_layers)),
        )


def share_out(
    weights: Sequence[float], total: int, *, size: int, floor: int, cap: int
) -> list[int]:
    """Split `total` units over sublayers in proportion to `weights`, by largest remainder.

    Every sublayer gets its floor; the rest is proportional; what a full sublayer cannot take is
    back-filled into the others. Equal remainders go to the earlier sublayer.

    Args:
        weights: One per sublayer; negative ones count as 0; all 0 means an even spread.
        total: Units to place; at most ``len(weights) * size``.
        size: Units that exist in one sublayer.
        floor: Units each gets at least; lowered to an even spread where the total is smaller.
        cap: Units each gets at most; raised to an even spread (or the floor) where the total
            could not be placed otherwise.

    Returns:
        One count per sublayer; they sum to `total`.

    Raises:
        DataError: If a weight is not finite or more units are wanted than exist.
    """
    n = len(weights)
    if not all(math.isfinite(w) for w in weights):
        raise DataError("The influence holds NaN or infinity; check the directions and the model.")
    if n == 0 or total > n * size:
        raise DataError(f"Cannot place {total} units in {n} sublayers of {size}.")
    floor = min(floor, size, total // n)
    cap = min(size, max(cap, floor, math.ceil(total / n)))
    counts = [floor] * n
    positive = [Fraction(max(float(w), 0.0)) for w in weights]  # exact: no rounding, no ties missed
    left = total - floor * n
    while left > 0:
        room = [i for i in range(n) if counts[i] < cap]
        share = [positive[i] for i in room]
        if not any(share):  # only sublayers without influence have room left
            share = [Fraction(1)] * len(room)
        for i, wanted in zip(room, _largest_remainder(share, left), strict=True):
            taken = min(wanted, cap - counts[i])
            counts[i] += taken
            left -= taken
    return counts


def _largest_remainder(shares: Sequence[Fraction], total: int) -> list[int]:
    whole = sum(shares, Fraction(0))
    quotas = [s * total / whole for s in shares]
    counts = [math.floor(q) for q in quotas]
    order = sorted(range(len(shares)), key=lambda i: (counts[i] - quotas[i], i))
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    return counts


def allocate(
    influence: Float[Tensor, "emotion layer 2"], budget: Budget, *, n_heads: int, d_mlp: int
) -> Int[Tensor, "emotion layer 2"]:
    """Units per emotion and sublayer.

    Args:
        influence: Sublayer influence, (attention, MLP) on the last axis; negative is clipped.
        budget: How many, and the rules.
        n_heads: Heads in one attention.
        d_mlp: Neurons in one MLP.

    Returns:
        Counts, (heads, neurons) on the last axis; they sum to ``budget.split(...)`` per emotion.

    Raises:
        DataError: If the influence is not finite.

    Source: arXiv 2510.11328 §6.
    """
    n_emotions, n_layers, _ = influence.shape
    totals = budget.split(n_layers, n_heads, d_mlp)
    floors = (budget.floor_heads, budget.floor_neurons)
    counts = torch.zeros(n_emotions, n_layers, 2, dtype=torch.long)
    for kind, size in enumerate((n_heads, d_mlp)):
        cap = math.floor(budget.cap * totals[kind])
        for e in range(n_emotions):
            weights = influence[e, :, kind].double().tolist()
            counts[e, :, kind] = torch.tensor(
                share_out(weights, totals[kind], size=size, floor=floors[kind], cap=cap)
            )
    return counts


def uniform_allocation(
    n_emotions: int, n_layers: int, budget: Budget, *, n_heads: int, d_mlp: int
) -> Int[Tensor, "emotion layer 2"]:
    """The same budget spread evenly over the layers: the control for the split by influence."""
    return allocate(torch.zeros(n_emotions, n_layers, 2), budget, n_heads=n_heads, d_mlp=d_mlp)


def top_k_allocation(
    neuron_scores: Float[Tensor, "emotion layer d_mlp"],
    head_scores: Float[Tensor, "emotion layer n_heads"],
    budget: Budget,
) -> Int[Tensor, "emotion layer 2"]:
    """The counts that the naive choice implies: the highest scores of the whole model."""
    n_emotions, n_layers, n_heads = head_scores.shape
    d_mlp = neuron_scores.shape[-1]
    totals = budget.split(n_layers, n_heads, d_mlp)
    counts = torch.zeros(n_emotions, n_layers, 2, dtype=torch.long)
    for kind, scores in enumerate((head_scores, neuron_scores)):
        size = scores.shape[-1]
        best = scores.reshape(n_emotions, -1).topk(totals[kind], dim=-1).indices // size
        for e in range(n_emotions):
            counts[e, :, kind] = torch.bincount(best[e].cpu(), minlength=n_layers)
    return counts
