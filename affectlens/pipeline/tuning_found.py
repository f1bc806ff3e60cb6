"""What came of a search for a way to steer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from affectlens.evaluation.arm_metrics import ArmMetrics
from affectlens.evaluation.no_effect import Effect, Reason
from affectlens.pipeline.tuning_candidates import Candidate

if TYPE_CHECKING:
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class Tried:
    """What a candidate did on the first so many events.

    Attributes:
        candidate: Which.
        events: How many.
        metrics: Of its replies to them.
        broken: Whether they cost more than the limit.
        tokens: That they have.
    """

    candidate: Candidate
    events: int
    metrics: ArmMetrics
    broken: bool
    tokens: int

    def row(self) -> dict[str, Any]:
        """For tables."""
        c, m = self.candidate, self.metrics
        return {
            "mode": c.mode,
            "band": c.band,
            "layers": f"{c.layers[0]}-{c.layers[-1]}",
            "strength": c.strength,
            "operator": c.operator,
            "positions": c.positions,
            "events": self.events,
            "accuracy": m.accuracy,
            "masked_accuracy": m.masked_accuracy,
            "later_accuracy": m.later_accuracy,
            "perplexity_ratio": m.perplexity_ratio,
            "topic": m.topic,
            "distinct2": m.distinct2,
            "repetition": m.repetition,
            "harmonic": m.harmonic,
            "masked_harmonic": m.masked_harmonic,
            "broken": self.broken,
            "tokens": self.tokens,
        }


@dataclass(frozen=True)
class Found:
    """What came of a search.

    Attributes:
        tried: The trade-off: everything that was measured, in order.
        best: The best; None if the text of all candidates breaks.
        spec: The request for the best, or for the most fluent where all break.
        pack: A pack that steers the emotion at the best one's layers alone, its strength,
            positions and mode recommended; None if there is no best.
        effect: What was measured of that candidate, to say why it works or does not.
        reason: Which it is.
        tokens: Generated in all, beside the unsteered replies.
    """

    tried: Sequence[Tried]
    best: Tried | None
    spec: str
    pack: SteeringPack | None
    effect: Effect
    reason: Reason
    tokens: int

    @property
    def breaks(self) -> list[dict[str, Any]]:
        """By mode, band and operator, the smallest dose at which text broke."""
        lowest: dict[tuple[str, str, str], Tried] = {}
        for one in self.tried:
            c = one.candidate
            key = c.mode, c.band, c.operator
            known = lowest.get(key)
            if one.broken and (known is None or c.strength < known.candidate.strength):
                lowest[key] = one
        return [one.row() for one in lowest.values()]

    def table_rows(self) -> list[dict[str, Any]]:
        """The trade-off, each row with whether nothing else of as many events beats it at once.

        ``front``: no candidate with the same number of events is heard more without its feeling
        words and costs less.
        """
        rows = [one.row() for one in self.tried]
        for row in rows:
            alike = [other for other in rows if other["events"] == row["events"]]
            row["front"] = not any(_beats(other, row) for other in alike)
        return rows


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    gain = one["masked_accuracy"] - other["masked_accuracy"]
    saving = other["perplexity_ratio"] - one["perplexity_ratio"]
    return gain >= 0 and saving >= 0 and (gain > 0 or saving > 0)
