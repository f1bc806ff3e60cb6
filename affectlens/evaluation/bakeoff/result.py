"""What a bake-off found: a line per method, pairs, the front, a winner per emotion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affectlens.core.artefact import write_json, write_text
from affectlens.core.display import Displayed
from affectlens.core.statistics import holm
from affectlens.evaluation.arm_metrics import ArmMetrics, summarise
from affectlens.evaluation.arms import UNSTEERED
from affectlens.evaluation.bakeoff.front import pareto_front
from affectlens.evaluation.bakeoff.winners import Winner, winner
from affectlens.evaluation.comparisons import Comparison, compare
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.steering.methods import METHODS

if TYPE_CHECKING:
    from affectlens.evaluation.bakeoff.candidates import Look
    from affectlens.evaluation.bakeoff.settings import BakeOffSettings
    from affectlens.evaluation.reply import Reply
    from affectlens.evaluation.reply_scores import Scores


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes:
        method: Its name, or ``unsteered``.
        control: Whether it is what others must beat.
        metrics: On the test events.
        ratios: Perplexity ratio by emotion.
        chosen: Strength or wording by emotion.
        looks: All that was tried, emotion by emotion.
        tuning_tokens: Generated to choose.
        generated_by: The back end that wrote its replies.
    """

    method: str
    control: bool
    metrics: ArmMetrics
    ratios: Mapping[str, float]
    chosen: Mapping[str, str]
    looks: Mapping[str, Sequence[Mapping[str, Any]]]
    tuning_tokens: int
    generated_by: str


def entry_of(
    name: str,
    scores: Scores,
    reference: Sequence[Reply],
    looks: Mapping[str, Sequence[Look]],
    best: Mapping[str, Look],
    tokens: int,
    generated_by: str,
    *,
    seed: int = 0,
) -> Entry:
    """Summarise the scores of a method; arguments as the fields of `Entry`."""
    ratios = {
        emotion: ratio_of_replies([r for r in scores.replies if r.emotion == emotion], reference)
        for emotion in best
    }
    tried = {
        emotion: [{**asdict(x), "candidate": str(x.candidate)} for x in seen]
        for emotion, seen in looks.items()
    }
    return Entry(
        name,
        name == UNSTEERED or METHODS[name].control,
        summarise(scores, seed=seed),
        ratios,
        {emotion: str(look.candidate) for emotion, look in best.items()},
        tried,
        tokens,
        generated_by,
    )


@dataclass(frozen=True, repr=False)
class BakeOff(Displayed):
    """All methods on one model.

    Attributes:
        model: Its name.
        settings: What was compared.
        budget: Tokens that each might spend on tuning.
        entries: A line each, the unsteered model first.
        pairs: Every method against every control; p by Holm over the methods.
        front: Methods that no other beats on both masked accuracy and perplexity ratio.
        winners: The best method of each emotion.
    """

    model: str
    settings: BakeOffSettings
    budget: int
    entries: tuple[Entry, ...]
    pairs: tuple[Comparison, ...]
    front: tuple[str, ...]
    winners: tuple[Winner, ...]

    @classmethod
    def of(
        cls,
        model: str,
        settings: BakeOffSettings,
        entries: Sequence[Entry],
        scores: Mapping[str, Scores],
    ) -> BakeOff:
        """Compare what was measured.

        Args:
            model: Its name.
            settings: What was compared.
            entries: Of all methods and the unsteered model.
            scores: Of the same.
        """
        controls = [one.method for one in entries if one.control]
        rivals = [one.method for one in entries if not one.control]
        points = {
            one.method: (one.metrics.masked_accuracy, one.metrics.perplexity_ratio)
            for one in entries
            if not one.control
        }
        return cls(
            model,
            settings,
            settings.budget,
            tuple(entries),
            tuple(_pairs(scores, rivals, controls, settings.seed)),
            pareto_front(points),
            tuple(
                winner(
                    emotion,
                    scores,
                    {one.method: one.ratios[emotion] for one in entries if one.ratios},
                    controls,
                    limit=settings.max_perplexity_ratio,
                    seed=settings.seed,
                )
                for emotion in settings.emotions
                if rivals
            ),
        )

    def brief(self) -> dict[str, object]:
        """Model, methods, events, front."""
        return {
            "model": self.model,
            "methods": sum(not one.control for one in self.entries),
            "controls": sum(one.control for one in self.entries),
            "events": self.settings.events,
            "front": ", ".join(self.front),
        }

    def table_rows(self) -> list[dict[str, object]]:
        """The honest columns, one line a method."""
        return [
            {
                "method": one.method,
                "heard": one.metrics.accuracy,
                "heard_ci": one.metrics.accuracy_ci,
                "masked": one.metrics.masked_accuracy,
                "masked_ci": one.metrics.masked_accuracy_ci,
                "later": one.metrics.later_accuracy,
                "copied": one.metrics.copied_openers,
                "ratio": one.metrics.perplexity_ratio,
                "distinct2": one.metrics.distinct2,
                "topic": one.metrics.topic,
                "harmonic": one.metrics.masked_harmonic,
                "harmonic_ci": one.metrics.masked_harmonic_ci,
                "tuning_tokens": one.tuning_tokens,
                "control": one.control,
                "front": one.method in self.front,
            }
            for one in self.entries
        ]

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write ``bakeoff.json`` and ``bakeoff.md``; returns both."""
        from affectlens.evaluation.bakeoff.markdown import markdown

        files = folder / "bakeoff.json", folder / "bakeoff.md"
        write_json(files[0], _finite(asdict(self)))
        write_text(files[1], markdown(self))
        return files


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, (list, tuple)) else value


def _pairs(
    scores: Mapping[str, Scores], rivals: Sequence[str], controls: Sequence[str], seed: int
) -> list[Comparison]:
    found = [
        pair for rival in rivals for pair in compare(scores, rival, controls=controls, seed=seed)
    ]
    adjusted: list[Comparison] = []
    for control in controls:
        for measure in dict.fromkeys(pair.measure for pair in found):
            family = [p for p in found if (p.control, p.measure) == (control, measure)]
            p_values = holm([pair.p for pair in family])
            adjusted += [replace(x, p=float(p)) for x, p in zip(family, p_values, strict=True)]
    return adjusted
