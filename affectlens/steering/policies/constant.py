"""The same emotions at every turn, as a trait of whoever speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from affectlens.core import DataError
from affectlens.core.emotions import emotion_name
from affectlens.steering.policies.base import (
    STRONGEST,
    AffectState,
    Decision,
    Known,
    PolicyKind,
    in_range,
    pairs_of,
    strength_of,
)


@dataclass(frozen=True)
class Constant:
    """Emotions of a fixed intensity, whatever the user says.

    Attributes:
        emotions: Emotion to signed strength; text such as ``"happiness:0.4"`` is read.
        strength: What they are multiplied by.

    Raises:
        DataError: If a number or a product is out of its range, or no emotion is named.
    """

    emotions: Mapping[str, float] | str = "happiness:0.5"
    strength: float = 1.0

    def __post_init__(self) -> None:
        found = pairs_of("emotions", self.emotions)
        if not found:
            raise DataError("The policy constant needs emotions, for example happiness:0.5.")
        checked = {e: in_range(e, s, -STRONGEST, STRONGEST) for e, s in found.items()}
        object.__setattr__(self, "emotions", checked)
        object.__setattr__(self, "strength", strength_of(self.strength))
        for e, s in checked.items():
            in_range(f"{e} times strength", self.strength * s, -STRONGEST, STRONGEST)

    @property
    def largest(self) -> float:
        """That of the loudest emotion."""
        asked = pairs_of("emotions", self.emotions)
        return self.strength * max(abs(s) for s in asked.values())

    def begin(self) -> AffectState:
        """The origin."""
        return AffectState()

    def decide(self, known: Known) -> Decision:
        """The same as ever.

        Raises:
            UnknownNameError: If an emotion cannot be steered.
            DataError: If one is named by two of its names.
        """
        asked = pairs_of("emotions", self.emotions)
        found = {emotion_name(e, known.emotions): self.strength * s for e, s in asked.items()}
        if len(found) < len(asked):
            raise DataError(f"{', '.join(asked)} are not as many emotions; name each once.")
        return Decision.of(found)


CONSTANT = PolicyKind(
    "constant",
    "The same emotions at every turn, as a trait",
    "s = strength · what is named",
    "ours",
    Constant,
)
