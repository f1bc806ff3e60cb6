"""Reply away from the distress that the user is read with."""

from __future__ import annotations

from dataclasses import dataclass

from affectlens.core import DataError
from affectlens.core.emotions import VAD
from affectlens.steering.policies.base import Decision, Known, OfReading, PolicyKind


@dataclass(frozen=True)
class Calm(OfReading):
    """Steer against each unpleasant, aroused emotion as strongly as it is read.

    Such are anger, disgust and fear. Sadness, whose arousal is low, is left alone, and so is what
    is pleasant: there is nothing to calm. No strength is above 0, so nothing that was read is
    raised, and the place of the strengths never has more arousal than the origin.

    Settings are those of `OfReading`.
    """

    def decide(self, known: Known) -> Decision:
        """Minus what was read of distress, times the strength.

        Raises:
            DataError: If none of the emotions has coordinates, which say what is distress.
        """
        if not any(e in VAD for e in known.emotions):
            raise DataError(
                f"None of {', '.join(known.emotions)} has published coordinates, which say what "
                "is to be calmed; use another policy."
            )
        return Decision.of(
            {
                e: -self.strength * p
                for e, p in known.felt.items()
                if p >= self.least and is_distress(e)
            }
        )


def is_distress(emotion: str) -> bool:
    """Whether an emotion is published as unpleasant and aroused."""
    valence, arousal, _ = VAD.get(emotion, (0.0, 0.0, 0.0))
    return valence < 0 < arousal


CALM = PolicyKind(
    "calm",
    "Away from the unpleasant, aroused emotions that the user is read with",
    "s_e = −strength · p_e where valence < 0 < arousal, else 0",
    "ours",
    Calm,
)
