"""Reply in the emotion that the user is read with."""

from __future__ import annotations

from dataclasses import dataclass

from affectlens.steering.policies.base import Decision, Known, OfReading, PolicyKind


@dataclass(frozen=True)
class Mirror(OfReading):
    """Each emotion as strongly as it is read.

    Settings are those of `OfReading`.
    """

    def decide(self, known: Known) -> Decision:
        """What was read, times the strength."""
        return Decision.of({e: self.strength * p for e, p in known.felt.items() if p >= self.least})


MIRROR = PolicyKind(
    "mirror",
    "The emotions that the user is read with",
    "s_e = strength · p_e",
    "ours",
    Mirror,
)
