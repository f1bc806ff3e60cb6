"""Masks learned by gradient: which units, taken out together, cost a margin most.

Units taken out one by one tell nothing of what they do for each other. Here each has a share α of
its values replaced by its mean, all at once, and of the masks that replace at most so many units
the one is looked for that lowers the margin most. Frank-Wolfe steps need no learning rate and no
price per unit: where the slopes in α point, the best mask of that size is a set of units, and the
mask moves towards it, so that it is the mean of the sets so far. The first set is what attribution
patching chooses. Which set is best is then measured with whole units taken out.

Source: subnetworks by learned masks, Cao et al. (arXiv 2104.03514); by sampled ones, Li and Janson
    (arXiv 2409.09951).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from affectlens.circuits.attribution.scores import UnitScores
from affectlens.circuits.attribution.slopes import Against, Asked, slopes
from affectlens.circuits.attribution.total_effect import joint_effects
from affectlens.circuits.attribution.unit_channels import by_channel, by_unit, units_there
from affectlens.circuits.attribution.weights import float32_gradients
from affectlens.circuits.interventions.base import Change, Intervention
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel

Masks = Mapping[str, Float[Tensor, "layer unit"]]
"""Shares of replacement of all heads and neurons."""


@dataclass(frozen=True)
class MaskSettings:
    """How masks are learned.

    Attributes:
        neurons, heads: How many units a mask replaces.
        steps: Sets of units that are tried; each costs a pass and its slopes over all texts.
    """

    neurons: int = 64
    heads: int = 4
    steps: int = 6

    def __post_init__(self) -> None:
        if min(self.neurons, self.heads) < 0 or not self.neurons + self.heads:
            raise DataError("A mask replaces at least one unit; ask for neurons, heads or both.")
        if self.steps < 1:
            raise DataError(f"A mask is learned in one step or more, not {self.steps}.")

    @property
    def method(self) -> str:
        """What tables call it."""
        return f"learned mask ({self.neurons} neurons, {self.heads} heads, {self.steps} steps)"


def learned_masks(
    model: LanguageModel,
    task: Task,
    means: UnitMeans,
    emotions: Sequence[str],
    settings: MaskSettings = MaskSettings(),
) -> UnitScores:
    """The best set of units per emotion that gradients find, as scores.

    Args:
        model: The model; gradients are taken in float32.
        task: Texts; of the emotions.
        means: What takes a unit's place: the mean over emotions.
        emotions: Of the task.
        settings: How large the masks are, and how long they are looked for.

    Returns:
        Units of the set whose loss, all of them at once, cost the margin most: 1 and more, by how
        many sets had them; all others below 1. Sublayers are not scored and have NaN.

    Raises:
        DataError: If the model is steered, a mask is larger than the model, or there is no text.
    """
    refuse_listeners(model.hf, "Attribution")
    units = units_there(model.anatomy)
    for kind, count in (("neurons", settings.neurons), ("heads", settings.heads)):
        there = int(units[kind].sum())
        if count > there:
            raise DataError(f"There are {there} {kind}, not {count}; ask for fewer.")
    found = {kind: torch.zeros(len(emotions), *there.shape) for kind, there in units.items()}
    for e, emotion in enumerate(emotions):
        for kind, scores in _of_emotion(model, task, means, emotion, settings).items():
            found[kind][e] = scores
    return UnitScores(
        method=settings.method,
        emotions=tuple(emotions),
        heads=found["heads"],
        neurons=found["neurons"],
        sublayers=torch.full((len(emotions), model.n_layers, 2), torch.nan),
        provenance=Provenance(
            kind="unit_scores",
            model=model.fingerprint,
            model_name=model.name,
            corpus=task.fingerprint,
            parameters={**asdict(settings), "method": "learned mask", "task": task.name},
        ),
    )


def _of_emotion(
    model: LanguageModel, task: Task, means: UnitMeans, emotion: str, settings: MaskSettings
) -> dict[str, Tensor]:
    counts = {"heads": settings.heads, "neurons": settings.neurons}
    units = units_there(model.anatomy)
    alpha: dict[str, Tensor] = {kind: torch.zeros(there.shape) for kind, there in units.items()}
    sets = list[dict[str, Tensor]]()
    with float32_gradients(model), progress(f"mask for {emotion}", settings.steps) as advance:
        for step in range(settings.steps):
            falls = relaxed_falls(model, task, means, emotion, alpha)
            sets.append({k: _top(falls[k], units[k], n) for k, n in counts.items()})
            # Every set so far has the same weight, and so has having replaced nothing: no unit is
            # ever replaced wholly, which would leave nothing to take a slope of.
            alpha = {
                k: (a * (step + 1) + sets[-1][k].float()) / (step + 2) for k, a in alpha.items()
            }
            advance(1)
    sets.append({k: _top(alpha[k], units[k], n) for k, n in counts.items()})
    costs = joint_effects(model, task, means, emotion, sets)
    best = sets[int(costs.argmax())]
    return {k: best[k].float() + alpha[k] for k in alpha}


def relaxed_falls(
    model: LanguageModel, task: Task, means: UnitMeans, emotion: str, alpha: Masks
) -> dict[str, Float[Tensor, "layer unit"]]:
    """How fast the margin falls in each unit's share of replacement, mean over texts.

    Args:
        model: In `float32_gradients`.
        task: Texts.
        means: What takes a unit's place.
        emotion: Whose margin.
        alpha: Shares at which slopes are taken, in [0, 1).

    Returns:
        ``-∂m/∂α`` of all heads and neurons; 0 where there is none. At α = 0 the scores of
        attribution patching.
    """
    against = Against(means)
    count = len(against.texts(task, emotion))
    shares = by_channel(model.anatomy, alpha)
    total = {at: torch.zeros(len(share)) for at, share in shares.items()}
    for parts in against.compared(model, task, emotion):
        for part in parts:
            there = {at: share for at, share in shares.items() if at in part.stands}
            changes = [
                Intervention(at, _towards(part.stands[at], share))
                for at, share in there.items()
                if bool(share.any())
            ]
            found = slopes(model, part.runs, Asked(list(there), changes=changes))
            for at, value in found.values.items():
                away = (value - part.stands[at].to(value.device)) * found.slopes[at]
                total[at] += away.sum((0, 1)).cpu() / (1 - there[at]) / count
    return by_unit(model.anatomy, total)


def _towards(stand: Float[Tensor, "1 1 width"], share: Float[Tensor, " width"]) -> Change:
    def change(value: Tensor) -> Tensor:
        return value + share.to(value.device) * (stand.to(value.device) - value)

    return change


def _top(
    falls: Float[Tensor, "layer unit"], there: Bool[Tensor, "layer unit"], count: int
) -> Bool[Tensor, "layer unit"]:
    chosen = torch.zeros(falls.numel(), dtype=torch.bool)
    if count:
        ranked = falls.masked_fill(~there, -torch.inf).flatten()
        chosen[ranked.argsort(descending=True, stable=True)[:count]] = True
    return chosen.view(falls.shape)
