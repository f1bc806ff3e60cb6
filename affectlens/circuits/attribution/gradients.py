"""Scores of units by slopes: attribution patching, EAP-IG and AtP*'s dropped gradients.

A unit's score is ``Σ_t <x_t - x'_t, ∂m/∂x_t>``: to first order the fall of the margin ``m`` if
its values ``x`` were ``x'``. *Integrated*, the slope is a mean over a path from ``x'`` to ``x``;
how the path is walked and which slopes are dropped are the settings. `total_effect` is what all of
them approximate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.circuits.attribution.scores import UnitScores, head_sums
from affectlens.circuits.attribution.slopes import Against, Asked, Compared, integrated, slopes
from affectlens.circuits.attribution.stand_ins import EMBEDDING, SUBLAYER_POINTS, UNIT_POINTS
from affectlens.circuits.attribution.unit_channels import by_unit
from affectlens.circuits.attribution.weights import float32_gradients
from affectlens.circuits.interventions.receivers import receivers
from affectlens.circuits.resuming import record
from affectlens.core.artefact import Provenance
from affectlens.core.errors import DataError, unknown
from affectlens.core.places import WritePoint
from affectlens.core.progress import progress
from affectlens.models.generation.listeners import refuse_listeners

if TYPE_CHECKING:
    from affectlens.circuits.tasks import Task
    from affectlens.models.loading import LanguageModel

PATHS: tuple[str, ...] = ("none", "inputs", "activations")
"""``none``: the slope at the values as they are. ``inputs``: all slopes while the embedding goes
from the other text's to its own. ``activations``: each sublayer's slope while its own units go."""


@dataclass(frozen=True)
class GradientSettings:
    """Which slopes are taken.

    Attributes:
        path: One of :data:`PATHS`.
        steps: Points on the path; the last is the text as it is, so one step is no path.
        drop: Take the mean magnitude over passes that each leave the slopes of one layer out, with
            the sign of the plain score: direct and later effects cannot cancel (GradDrop).
    """

    path: str = "none"
    steps: int = 5
    drop: bool = False

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise unknown("path", self.path, PATHS)
        if self.steps < 1:
            raise DataError(f"A path has one step or more, not {self.steps}.")
        if self.drop and self.path != "none":
            raise DataError("Dropped gradients are taken at the values as they are: path='none'.")

    @property
    def method(self) -> str:
        """What tables call it."""
        if self.drop:
            return "attribution patching, gradients dropped"
        if self.path == "none":
            return "attribution patching"
        return f"EAP-IG ({self.path}, steps {self.steps})"


def gradient_scores(
    model: LanguageModel,
    task: Task,
    against: Against,
    emotions: Sequence[str],
    settings: GradientSettings = GradientSettings(),
) -> UnitScores:
    """Scores of all heads, dense neurons and sublayers, averaged over the texts of each emotion.

    A sublayer's score is the sum of its units'; of a mixture, and of attention without heads, it is
    that of what it writes.

    Args:
        model: The model; gradients are taken in float32.
        task: Texts; of the emotions.
        against: Means, or pairs of texts.
        emotions: Of the task.
        settings: Which slopes.

    Returns:
        In the task's unit; positive where the emotion's margin needs the unit.

    Raises:
        DataError: If the model is steered, there is no text or pair, or a path over inputs is asked
            for without pairs.

    Source: Nanda (2023); Syed et al., arXiv 2310.10348; Hanna et al., arXiv 2403.17806 (EAP-IG);
        Kramar et al., arXiv 2403.00745 (AtP*).
    """
    refuse_listeners(model.hf, "Attribution")
    if settings.path == "inputs" and against.means is not None:
        raise DataError(
            "A path over inputs runs from another text to its own; give pairs of texts, or take "
            "path='activations'."
        )
    work = _Work(model, settings)
    total = {at: torch.zeros(len(emotions), width) for at, width in work.widths.items()}
    with float32_gradients(model):
        for e, emotion in enumerate(emotions):
            count = len(against.texts(task, emotion))
            with progress(f"{settings.method}, {emotion}", count) as advance:
                for parts in against.compared(model, task, emotion, apart=True):
                    for part in parts:
                        for at, score in work.scores(part).items():
                            total[at][e] += score.cpu() / count
                    advance(1)
    return UnitScores(
        method=settings.method,
        emotions=tuple(emotions),
        **work.together(total),
        provenance=Provenance(
            kind="unit_scores",
            model=model.fingerprint,
            model_name=model.name,
            corpus=task.fingerprint,
            parameters={
                **asdict(settings),
                "task": task.name,
                "against": "means" if against.means is not None else "pairs",
            },
        ),
    )


class _Work:
    """How one part of a text is scored."""

    def __init__(self, model: LanguageModel, settings: GradientSettings) -> None:
        self._model, self._settings = model, settings
        self.widths = _places(model)
        self._readings = receivers(model) if settings.drop else {}

    def scores(self, part: Compared) -> Mapping[WritePoint, Float[Tensor, " width"]]:
        """Of every channel of every place."""
        if self._settings.path == "activations":
            return self._along_activations(part)
        if self._settings.drop:
            return self._dropped(part)
        if self._settings.path == "inputs":
            return self._along(part, list(self.widths), EMBEDDING)
        return self._plain(part, Asked(list(self.widths)))

    def _plain(self, part: Compared, asked: Asked) -> dict[WritePoint, Tensor]:
        found = slopes(self._model, part.runs, asked)
        return {
            at: _score(value, part.stands[at], found.slopes[at])
            for at, value in found.values.items()
            if at in part.stands
        }

    def _along(
        self, part: Compared, places: Sequence[WritePoint], moved: WritePoint
    ) -> dict[WritePoint, Tensor]:
        found = integrated(self._model, part, Asked(places), moved, self._settings.steps)
        return {
            at: _score(value, part.stands[at], found.slopes[at])
            for at, value in found.values.items()
            if at in part.stands
        }

    def _along_activations(self, part: Compared) -> dict[WritePoint, Tensor]:
        kept = record(self._model, part.runs)
        scores: dict[WritePoint, Tensor] = {}
        for at in self.widths:
            if at in part.stands:
                begun = Compared(kept.resumed(at.layer), part.stands)
                scores |= self._along(begun, [at], at)
        return scores

    def _dropped(self, part: Compared) -> dict[WritePoint, Tensor]:
        plain = self._plain(part, Asked(list(self.widths)))
        size = {at: torch.zeros_like(score) for at, score in plain.items()}
        for layer in range(self._model.n_layers):
            constant = {r: way for r, way in self._readings.items() if r.layer == layer}
            asked = Asked(list(self.widths), constant=constant)
            for at, score in self._plain(part, asked).items():
                size[at] += self._units(at, score).abs() / self._model.n_layers
        return {at: size[at] * self._units(at, score).sign() for at, score in plain.items()}

    def _units(self, at: WritePoint, score: Tensor) -> Tensor:
        """Scores of whole heads at their first channels, so that magnitudes are of units."""
        if at.point != UNIT_POINTS["heads"]:
            return score
        part = self._model.anatomy.blocks[at.layer]
        whole = torch.zeros_like(score).unflatten(-1, (part.n_heads, part.d_head))
        whole[..., 0] = head_sums(score, part.n_heads, part.d_head)
        return whole.flatten(-2)

    def together(self, total: Mapping[WritePoint, Tensor]) -> dict[str, Tensor]:
        """Channels of all places as scores of heads, neurons and sublayers."""
        anatomy = self._model.anatomy
        n = next(iter(total.values())).shape[0]
        sublayers = torch.zeros(n, anatomy.n_layers, 2)
        for at, score in total.items():
            mlp = at.point in (UNIT_POINTS["neurons"], SUBLAYER_POINTS[1])
            sublayers[:, at.layer, int(mlp)] = score.sum(-1)
        return {**by_unit(anatomy, total), "sublayers": sublayers}


def _places(model: LanguageModel) -> dict[WritePoint, int]:
    """Places of units, or of what a sublayer without units writes, and their widths."""
    found: dict[WritePoint, int] = {}
    for part in model.anatomy.blocks:
        if part.n_heads:
            found[WritePoint(part.layer, UNIT_POINTS["heads"])] = part.n_heads * part.d_head
        elif part.attn_adds and (part.o_proj or part.attn) is not None:
            found[WritePoint(part.layer, SUBLAYER_POINTS[0])] = model.d_model
        if part.d_mlp:
            found[WritePoint(part.layer, UNIT_POINTS["neurons"])] = part.d_mlp
        elif part.mlp_adds and (part.down_proj or part.mlp) is not None:
            found[WritePoint(part.layer, SUBLAYER_POINTS[1])] = model.d_model
    return found


def _score(value: Tensor, stand: Tensor, slope: Tensor) -> Float[Tensor, " width"]:
    return ((value - stand.to(value.device)) * slope).sum((0, 1))
