"""Reply in the emotion that the user is read with."""

from __future__ import annotations

from dataclasses import dataclass

from affectlens.steering.policies.base import (
    AffectState,
    Decision,
    Known,
    PolicyKind,
    in_range,
    strength_of,
)


@dataclass(frozen=True)
class Mirror:
    """Each emotion as strongly as it is read.

    Attributes:
        strength: That of an emotion which is read for certain.
        least: Probability below which an emotion is left out, in [0, 1].

    Raises:
        DataError: If a number is out of its range.
    """

    strength: float = 1.0
    least: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", strength_of(self.strength))
        object.__setattr__(self, "least", in_range("least", self.least, 0, 1))

    @property
    def largest(self) -> float:
        """That of an emotion which is read for certain."""
        return self.strength

    def begin(self) -> AffectState:
        """The origin."""
        return AffectState()

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
