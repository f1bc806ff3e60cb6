"""Gradient descent on many small problems at once.

All problems (site, resample, penalty) are axes of one tensor. Adam treats every number by itself,
so the sum of the problems' losses leaves each the path it would go alone, whatever it is fitted
beside. Rows of a step are drawn by the weights of the problem's own resample, from the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Descent:
    """How long and how fast; the schedule is a linear rise and a fall by cosine.

    Attributes:
        batch: Rows of one step.
        steps: At least so many; or one pass over the rows, where that takes more.
        rate: Highest rate of Adam.
        warm: Share of the steps in which the rate rises.
        seed: Of the rows drawn (and of weights to begin with, where these are drawn).
    """

    batch: int = 64
    steps: int = 1000
    rate: float = 1e-3
    warm: float = 0.1
    seed: int = 0

    def length(self, rows: int) -> int:
        """Steps for so many rows."""
        return max(self.steps, math.ceil(rows / self.batch))


def drawn_rows(
    weight: Float[Tensor, "resample n"], descent: Descent
) -> Int[Tensor, "step resample batch"]:
    """Rows of every step, drawn in proportion to their weights; on the CPU."""
    found = list[Tensor]()
    rows = int((weight > 0).sum(1).max())
    shape = (descent.length(rows), descent.batch)
    for own in weight.detach().cpu().double():
        generator = torch.Generator().manual_seed(descent.seed)
        edges = own.cumsum(0)
        places = torch.rand(shape, generator=generator, dtype=torch.float64) * edges[-1]
        found.append(torch.searchsorted(edges, places, right=True).clamp_max(len(own) - 1))
    return torch.stack(found, dim=1)


def descend(
    parameters: Sequence[Tensor],
    loss: Callable[[int], Float[Tensor, ""]],
    steps: int,
    descent: Descent,
) -> None:
    """Change the parameters in place.

    Args:
        parameters: With gradients.
        loss: The sum of all problems' losses at a step.
        steps: How many.
        descent: Rate and schedule.
    """
    optimiser = torch.optim.Adam(parameters, lr=descent.rate)
    rise = max(1, round(descent.warm * steps))

    def rate(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    with torch.enable_grad():
        for step in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss(step).backward()
            optimiser.step()
            schedule.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
