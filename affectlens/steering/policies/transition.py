"""A mood that the user's messages move and the temperament draws back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from affectlens.core import DataError
from affectlens.core.emotions import VAD
from affectlens.core.errors import unknown
from affectlens.steering.affect_targets import mixture_for
from affectlens.steering.policies.base import (
    AffectState,
    Decision,
    Known,
    PolicyKind,
    in_range,
    strength_of,
)
from affectlens.steering.policies.traits import Traits

MIXTURE, NEAREST = "mixture", "nearest"


@dataclass(frozen=True)
class Transition:
    """Personality-affected transition of a mood.

    With the mood ``m`` of the turn before, the temperament ``t`` of the traits and the place ``c``
    of the user's message, ``m' = m + decay (t − m) + reactivity (1 + t) ∘ c``, kept in [-1, 1] in
    each dimension. A message without emotion (``c = 0``) lets the mood fall back to ``t``; where
    ``decay`` equals ``reactivity``, the mood of somebody without marked traits comes to rest where
    the user is. The reply gets the emotions that lie at ``m'``.

    Attributes:
        traits: Of whom the model plays; text such as ``"extraversion:0.5"`` is read.
        decay: Share of the way back to the temperament that a turn goes, in [0, 1].
        reactivity: How far a message moves somebody without marked traits, in [0, 1].
        choice: ``"mixture"``: all emotions that together lie there; ``"nearest"``: the one that is
            nearest, as strongly as the mood lies along it, or none if the origin is nearer.
        strength: What the emotions' strengths are multiplied by.

    Raises:
        DataError: If a number is out of its range.
        UnknownNameError: If there is no such trait or choice.
    """

    traits: Traits | str = field(default_factory=Traits)
    decay: float = 0.4
    reactivity: float = 0.4
    choice: str = MIXTURE
    strength: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "traits", Traits.parse(self.traits))
        for name in ("decay", "reactivity"):
            object.__setattr__(self, name, in_range(name, getattr(self, name), 0, 1))
        object.__setattr__(self, "strength", strength_of(self.strength))
        if self.choice not in (MIXTURE, NEAREST):
            raise unknown("choice of emotions", self.choice, (MIXTURE, NEAREST))

    @property
    def _temperament(self) -> AffectState:
        return Traits.parse(self.traits).temperament

    @property
    def largest(self) -> float:
        """That of a mood at the place of an emotion: a mixture adds up to 1 at most."""
        return self.strength

    def begin(self) -> AffectState:
        """The temperament."""
        return self._temperament

    def decide(self, known: Known) -> Decision:
        """Move the mood, and find the emotions that lie where it is.

        Raises:
            DataError: If none of the emotions has coordinates.
        """
        mood = AffectState.clipped(
            [
                m + self.decay * (t - m) + self.reactivity * (1 + t) * c
                for m, t, c in zip(
                    known.state.place, self._temperament.place, known.place, strict=True
                )
            ]
        )
        find = nearest_to if self.choice == NEAREST else _mixture_at
        found = find(mood, known.emotions)
        return Decision({e: self.strength * s for e, s in found.items()}, mood)


def _mixture_at(mood: AffectState, emotions: tuple[str, ...]) -> dict[str, float]:
    return mixture_for(*mood.place, emotions=emotions)


def nearest_to(mood: AffectState, emotions: tuple[str, ...]) -> dict[str, float]:
    """The emotion nearest to a place, with ``⟨m, a⟩ / |a|²`` at most 1; none near the origin.

    Raises:
        DataError: If none of the emotions has coordinates.
    """
    known = [e for e in emotions if e in VAD and any(VAD[e])]
    if not known:
        raise DataError(
            f"None of {', '.join(emotions)} has published coordinates of valence and arousal; "
            "use a policy that needs none, such as mirror."
        )
    best = min(known, key=lambda e: math.dist(VAD[e], mood.place))
    if math.hypot(*mood.place) <= math.dist(VAD[best], mood.place):
        return {}
    a = VAD[best]
    along = sum(m * x for m, x in zip(mood.place, a, strict=True)) / sum(x * x for x in a)
    return {best: min(1.0, along)}


TRANSITION = PolicyKind(
    "transition",
    "A mood that the user's messages move and the temperament of five traits draws back",
    "m' = m + decay (t − m) + reactivity (1 + t) ∘ c; s: what lies at m'",
    "after Wen et al. 2021 (arXiv 2106.15846), who learn the shift; t of Mehrabian 1996",
    Transition,
)
