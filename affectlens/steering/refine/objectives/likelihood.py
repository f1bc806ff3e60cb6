"""Plain likelihood: each emotion's reply while that emotion is steered."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.steering.refine.log_probabilities import (
    Additions,
    Changes,
    added,
    reply_log_probabilities,
)
from affectlens.steering.refine.objectives.objective import Objective
from affectlens.steering.refine.replies import Group

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.refine.settings import RefineSettings


def likelihood(
    model: LanguageModel,
    groups: Sequence[Group],
    additions: Additions,
    settings: RefineSettings,
    _rng: random.Random,
) -> Float[Tensor, ""]:
    """`unlikelihood` of replies while vectors are added."""
    return unlikelihood(
        model, groups, {at: added(vectors) for at, vectors in additions.items()}, settings
    )


def unlikelihood(
    model: LanguageModel, groups: Sequence[Group], changes: Changes, settings: RefineSettings
) -> Float[Tensor, ""]:
    """Negative log-likelihood, mean over tokens, the first ones weighted more if so set.

    Args:
        model: With its weights frozen.
        groups: Of a prompt and a reply in every emotion.
        changes: What becomes of hidden states, differentiable.
        settings: Of the descent.
    """
    said, keep = reply_log_probabilities(model, groups, changes, settings.max_reply_tokens)
    when = torch.arange(said.shape[1], device=said.device, dtype=torch.float32)
    weight = 1 + settings.first_weight * torch.exp(-when / settings.tau)
    return -(weight * said)[keep].mean()


LIKELIHOOD = Objective(
    "likelihood", "each emotion's replies, likely while it is steered", likelihood
)
