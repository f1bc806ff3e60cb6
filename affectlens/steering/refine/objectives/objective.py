"""What an objective is: a loss of what is added, on groups of replies to one prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from jaxtyping import Float
from torch import Tensor

from affectlens.steering.refine.log_probabilities import Additions
from affectlens.steering.refine.replies import Group

if TYPE_CHECKING:
    from affectlens.models.loading import LanguageModel
    from affectlens.steering.refine.settings import RefineSettings


class Loss(Protocol):
    """What is descended on."""

    def __call__(
        self,
        model: LanguageModel,
        groups: Sequence[Group],
        additions: Additions,
        settings: RefineSettings,
        rng: random.Random,
        /,
    ) -> Float[Tensor, ""]:
        """A number to be lowered, differentiable in the additions.

        Args:
            model: With its weights frozen.
            groups: Of a prompt and a reply in every emotion, in the order of the additions.
            additions: At strength 1.
            settings: Of the descent.
            rng: What is drawn is drawn from it.
        """
        ...


@dataclass(frozen=True)
class Objective:
    """A row of `OBJECTIVES`.

    Attributes:
        name: What `RefineSettings.objective` takes.
        help: One line.
        loss: What is lowered.
    """

    name: str
    help: str
    loss: Loss
