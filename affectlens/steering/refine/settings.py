"""How vectors are refined."""

from __future__ import annotations

import math
from dataclasses import dataclass

from affectlens.core import DataError


@dataclass(frozen=True)
class RefineSettings:
    """How vectors are refined.

    Attributes:
        steps: Gradient steps (Adam), learning rate warmed up over three and then falling to a
            fifth.
        groups_per_step: Groups in a batch; each gives one reply per emotion.
        max_reply_tokens: Replies are cut to so many tokens.
        learning_rate: In units of the starting vector's RMS per component.
        start: The analytic vector is multiplied by this to start from.
        first_weight: Extra weight of a reply's first token; it falls off as ``exp(-t / tau)``,
            because what opens a reply decides its tone.
        tau: In tokens.
        objective: What is lowered, a name in `affectlens.steering.refine.OBJECTIVES`; the weight of
            first tokens is of ``likelihood``, the strengths are of ``reps``.
        strengths: One is drawn for each emotion at every step.
        seed: Of the choice of groups, and of what an objective draws.
    """

    steps: int = 32
    groups_per_step: int = 4
    max_reply_tokens: int = 24
    learning_rate: float = 0.4
    start: float = 1.0
    first_weight: float = 3.0
    tau: float = 6.0
    objective: str = "likelihood"
    strengths: tuple[float, ...] = (0.5, 1.0, 1.5)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "groups_per_step", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        for name in ("learning_rate", "start", "tau"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{name} must be above 0, not {value!r}.")
        if not self.strengths or not all(math.isfinite(s) and s > 0 for s in self.strengths):
            raise DataError(f"strengths must be above 0, not {self.strengths!r}.")


RESIDUAL = RefineSettings(learning_rate=0.3, start=0.8)
CIRCUIT = RefineSettings(learning_rate=0.5, start=2.0)
