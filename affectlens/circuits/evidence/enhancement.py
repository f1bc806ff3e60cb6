"""Enhancement: do units, set as they are in a tone, make a text of another tone go on in it?

The counterpart of ablation: in texts of other tones the units of an emotion are set to what they
are in its own, and the margin towards it is measured. Beside it stand as many random units, and the
units of the other emotions, all set to what they are in the same tone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from affectlens.circuits.evidence.ablation import Samples
from affectlens.circuits.evidence.conditions import Replacement
from affectlens.circuits.evidence.curve import EnhancementCurve
from affectlens.circuits.evidence.items import Item
from affectlens.circuits.evidence.measure import other_contexts
from affectlens.circuits.evidence.plan import CurveSettings, Trial, made_by, run_curve
from affectlens.circuits.evidence.replacements import mean, of_tone
from affectlens.circuits.tasks.base import Task
from affectlens.core.errors import DataError, unknown

if TYPE_CHECKING:
    from affectlens.circuits.attribution.unit_means import UnitMeans
    from affectlens.circuits.circuit import Circuit
    from affectlens.models.loading import LanguageModel

SET_TO: tuple[str, ...] = ("mean", "patch")
"""What units are set to: their mean in the tone, or their values at tokens of its texts."""


@dataclass(frozen=True)
class EnhancementSettings(CurveSettings):
    """What is set, and beside what; see `CurveSettings`.

    Attributes:
        to: One of :data:`SET_TO`; ``"patch"`` needs samples (`tone_samples`).
    """

    to: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.to not in SET_TO:
            raise unknown("value to set units to", self.to, SET_TO)


def enhance(
    model: LanguageModel,
    task: Task,
    circuit: Circuit,
    means: UnitMeans,
    settings: EnhancementSettings = EnhancementSettings(),
    samples: Samples | None = None,
) -> EnhancementCurve:
    """Set the units of each emotion, and as many random ones, in texts of the other tones.

    Each item is read in the context of one other tone, each in its turn. Margins are centred by the
    model as it is.

    Args:
        model: The model.
        task: Of texts that gave neither circuit nor means, in all of its emotions.
        circuit: Of this model.
        means: Of this model's units, in all emotions of the task.
        settings: What is set.
        samples: Of `tone_samples`, for patching.

    Raises:
        MismatchError, DataError: As `affectlens.circuits.evidence.ablate`.
    """

    def trial(items: list[Item], emotion: int) -> Trial:
        put = set_for(settings.to, means, samples, task.emotions[emotion], settings.seed)
        return Trial(put, other_contexts(items, emotion))

    rises = run_curve(model, task, circuit, settings, trial, "enhancing")
    return EnhancementCurve(
        emotions=circuit.emotions,
        told=task.emotions,
        counts=settings.counts,
        scenarios=task.scenarios,
        margins=task.margins(model),
        changes=rises[0],
        random_changes=rises[1],
        provenance=made_by("enhancement", model, task, circuit, means, settings),
    )


def set_for(
    to: str, means: UnitMeans, samples: Samples | None, emotion: str, seed: int
) -> Replacement:
    """What units are set to in a tone.

    Raises:
        DataError: If samples are missing, or have none of the tone.
    """
    if to == "mean":
        return mean(means, emotion)
    if samples is None:
        raise DataError("Patching needs values of other texts; make them with `tone_samples`.")
    return of_tone(samples, emotion, seed)
