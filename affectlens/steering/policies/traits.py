"""Five traits of a person, and the temperament that goes with them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from affectlens.core.errors import unknown
from affectlens.steering.policies.base import AffectState, in_range, pairs_of

# Rows: valence, arousal, dominance. Mehrabian regressed on emotional *stability*, the other end of
# neuroticism; some who cite him call that column N and leave its signs, so theirs are turned.
_OPENNESS = (0.0, 0.15, 0.25)
_CONSCIENTIOUSNESS = (0.0, 0.0, 0.17)
_EXTRAVERSION = (0.21, 0.0, 0.60)
_AGREEABLENESS = (0.59, 0.30, -0.32)
_NEUROTICISM = (-0.19, 0.57, 0.0)


@dataclass(frozen=True)
class Traits:
    """The Big Five, each from -1 (as little as people have) over 0 (as most) to 1.

    Raises:
        DataError: If one is no number in that range.
    """

    openness: float = 0.0
    conscientiousness: float = 0.0
    extraversion: float = 0.0
    agreeableness: float = 0.0
    neuroticism: float = 0.0

    def __post_init__(self) -> None:
        for name in trait_names():
            object.__setattr__(self, name, in_range(name, getattr(self, name), -1, 1))

    @classmethod
    def parse(cls, value: Any) -> Traits:
        """Read ``"extraversion:0.5,neuroticism:-0.3"`` or a mapping; traits are given back.

        Raises:
            UnknownNameError: If there is no such trait, closest first.
            DataError: If it cannot be read, or a number is out of range.
        """
        if isinstance(value, Traits):
            return value
        given = pairs_of("traits", value)
        for name in given:
            if name not in trait_names():
                raise unknown("trait", name, trait_names())
        return cls(**given)

    def __str__(self) -> str:
        given = {name: getattr(self, name) for name in trait_names()}
        return ",".join(f"{name}:{value!r}" for name, value in given.items() if value)

    @property
    def temperament(self) -> AffectState:
        """Where such a person usually is.

        ``valence = .21 E + .59 A − .19 N``, ``arousal = .15 O + .30 A + .57 N``, ``dominance = .25
        O + .17 C + .60 E − .32 A``, each kept in [-1, 1] (Mehrabian, 1996, Australian Journal of
        Psychology 48, 86-92; his third predictor of valence and arousal is emotional stability,
        ``−N``).
        """
        weights = (_OPENNESS, _CONSCIENTIOUSNESS, _EXTRAVERSION, _AGREEABLENESS, _NEUROTICISM)
        given = [getattr(self, name) for name in trait_names()]
        rows = zip(*weights, strict=True)
        return AffectState.clipped(
            [sum(w * x for w, x in zip(row, given, strict=True)) for row in rows]
        )


def trait_names() -> tuple[str, ...]:
    """The five."""
    return tuple(one.name for one in fields(Traits))
