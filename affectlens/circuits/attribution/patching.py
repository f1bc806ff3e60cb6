"""Attribution patching: how far a margin would fall without each unit, from one backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.gradients import gradient_scores
from affectlens.circuits.attribution.slopes import Against

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel


def attribution_patching(
    model: LanguageModel, task: Task, means: UnitMeans, emotions: Sequence[str]
) -> tuple[Float[Tensor, "emotion layer d_mlp"], Float[Tensor, "emotion layer n_heads"]]:
    """Expected fall of each emotion's margin if a unit's values were its mean at every token.

    The plain case of `affectlens.circuits.attribution.gradients.gradient_scores`: the derivative
    of `affectlens.circuits.evidence.ablate` at the first step from ``x`` to ``μ``. Softmaxes and
    norms are curved, so single units come out well and large sets do not simply add up; `ablate`
    on other texts is the test.

    Args:
        model: The model.
        task: Texts to rank by; test on others.
        means: What would take the units' place.
        emotions: Of the task.

    Returns:
        Neurons and heads, in the task's unit; positive where the emotion's margin needs the unit.

    Raises:
        DataError: If the model is being steered, or an emotion has no text with its own
            continuation and another.

    Source: Nanda, "Attribution patching" (2023); Syed et al., arXiv 2310.10348.
    """
    scores = gradient_scores(model, task, Against(means), emotions)
    return scores.neurons, scores.heads
