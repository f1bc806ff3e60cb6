"""The descent itself: Adam on what is added, with the weights frozen."""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.core import ModelError
from affectlens.steering.refine.log_probabilities import Additions
from affectlens.steering.refine.objectives import OBJECTIVES
from affectlens.steering.refine.replies import Group, complete_groups, listed
from affectlens.steering.refine.settings import RefineSettings

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus
    from affectlens.models.loading import LanguageModel

logger = logging.getLogger(__name__)

Advance = Callable[[int], object]

Lowered = Callable[[Sequence[Group], Sequence[Tensor], random.Random], Float[Tensor, ""]]
"""A loss of groups and free parameters; what it draws, it draws from the last."""


def rms_per_layer(
    values: Float[Tensor, "emotion layer width"], mask: Bool[Tensor, "emotion layer width"]
) -> Float[Tensor, "1 layer 1"]:
    """RMS over emotions and chosen components: one step size then suits every layer."""
    count = mask.sum((0, 2), keepdim=True).clamp_min(1)
    return ((values * mask).square().sum((0, 2), keepdim=True) / count).sqrt().clamp_min(1e-6)


def of_additions(
    model: LanguageModel,
    additions: Callable[[Sequence[Tensor]], Additions],
    settings: RefineSettings,
) -> Lowered:
    """The objective that settings name, of what is added.

    Raises:
        UnknownNameError: If there is no such objective.
    """
    objective = OBJECTIVES[settings.objective]

    def lowered(
        groups: Sequence[Group], free: Sequence[Tensor], rng: random.Random
    ) -> Float[Tensor, ""]:
        return objective.loss(model, groups, additions(free), settings, rng)

    return lowered


def descend(
    model: LanguageModel,
    corpora: Corpus | Sequence[Corpus],
    emotions: Sequence[str],
    start: Sequence[Tensor],
    lowered: Lowered,
    settings: RefineSettings,
    advance: Advance,
) -> list[Tensor]:
    """Adam on the free parameters; returns them on the CPU, in float32."""
    pools = [complete_groups(corpus, emotions) for corpus in listed(corpora)]
    turn = itertools.cycle(pools)
    rng = random.Random(settings.seed)
    free = [
        (settings.start * s).to(model.device, torch.float32).requires_grad_(True) for s in start
    ]
    optimiser = torch.optim.Adam(free, lr=settings.learning_rate, betas=(0.9, 0.95))
    losses: list[float] = []
    with _frozen(model):
        for step in range(settings.steps):
            warm, done = min(1.0, (step + 1) / 3), step / settings.steps
            optimiser.param_groups[0]["lr"] = settings.learning_rate * warm * (1 - 0.8 * done)
            groups = [rng.choice(next(turn)) for _ in range(settings.groups_per_step)]
            loss = lowered(groups, free, rng)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise ModelError(
                    f"Refining diverged at step {step}; lower learning_rate or start, or use "
                    "float32."
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            advance(1)
    logger.info("refined in %d steps: loss %.3f to %.3f", settings.steps, losses[0], losses[-1])
    return [f.detach().cpu() for f in free]


@contextmanager
def _frozen(model: LanguageModel) -> Generator[None, None, None]:
    """No gradients for weights, and the flags as they were afterwards."""
    flags: list[tuple[Any, bool]] = [(p, p.requires_grad) for p in model.hf.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
