"""Ablation: does a tone carry over less when the circuit's units say nothing of the text?

For growing numbers of a circuit's units, the highest scores first, their values are replaced, and
the margins of a task are measured again; beside it, the same with as many random units of the same
sublayers, and with the units of the other emotions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.evidence.conditions import Replacement
from affectlens.circuits.evidence.curve import AblationCurve
from affectlens.circuits.evidence.items import Item
from affectlens.circuits.evidence.plan import CurveSettings, Trial, made_by, run_curve
from affectlens.circuits.evidence.replacements import BY, mean, resample, zero
from affectlens.circuits.tasks.base import Task
from affectlens.core.errors import DataError, unknown

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

Samples = Mapping[str, Mapping[str, Float[Tensor, "sample layer width"]]]


@dataclass(frozen=True)
class AblationSettings(CurveSettings):
    """What is taken out, and beside what; see `CurveSettings`.

    Attributes:
        by: One of :data:`BY`; ``"resample"`` needs samples (`tone_samples`).
    """

    by: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in BY:
            raise unknown("replacement", self.by, BY)


def ablate(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: AblationSettings = AblationSettings(),
    samples: Samples | None = None,
) -> AblationCurve:
    """Take out the units of each emotion, and as many random ones.

    Margins under an ablation are centred by the model as it is, so that a fall is that of the
    weighted log-probabilities in the emotion's own context alone.

    Args:
        model: The model.
        task: Of texts that gave neither circuit nor means, in all of its emotions.
        circuit: Of this model.
        means: Of this model's units, of any texts of the same kind (`unit_means`).
        settings: What is taken out.
        samples: Of `tone_samples`, for resampling.

    Raises:
        MismatchError: If the circuit is of another model.
        DataError: If the model is being steered, an emotion of the circuit is none of the task's,
            a circuit has fewer units than the largest count, a sublayer too few others to draw
            from, or samples are missing.
    """

    def trial(items: list[Item], emotion: int) -> Trial:
        put = put_for(settings.by, means, samples, task.emotions[emotion], settings.seed)
        return Trial(put, [emotion] * len(items))

    rises = run_curve(model, task, circuit, settings, trial, "ablating")
    return AblationCurve(
        emotions=circuit.emotions,
        told=task.emotions,
        counts=settings.counts,
        scenarios=task.scenarios,
        margins=task.margins(model),
        changes=-rises[0],
        random_changes=-rises[1],
        provenance=made_by("ablation", model, task, circuit, means, settings),
    )


def put_for(
    by: str, means: UnitMeans, samples: Samples | None, emotion: str, seed: int
) -> Replacement:
    """What takes the place of units' values in the test of an emotion.

    Raises:
        DataError: If samples are missing.
    """
    if by != "resample":
        return zero(means) if by == "zero" else mean(means)
    if samples is None:
        raise DataError("Resampling needs values of other texts; make them with `tone_samples`.")
    return resample(samples, emotion, seed)
