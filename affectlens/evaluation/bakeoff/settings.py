"""What a bake-off compares, and how much it may spend."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from affectlens.core import EMOTIONS
from affectlens.core.errors import DataError
from affectlens.models.generation.decoding import GenerationSettings
from affectlens.steering.methods import METHODS

REPLIES = GenerationSettings(max_new_tokens=48)


@dataclass(frozen=True)
class BakeOffSettings:
    """What is compared; the same for every method.

    Attributes:
        methods: Names in `affectlens.steering.methods.METHODS`; the controls among them are what
            the others are held against.
        emotions: Targets.
        events: Test events that are answered in every emotion.
        tune_events: Tuning events, where strengths and wordings are chosen.
        looks: Strengths or wordings that may be tried per method and emotion. With ``tune_events``
            and the length of replies it is the budget in generated tokens, equal for all.
        max_perplexity_ratio: What costs more is not chosen.
        generation: Of all replies.
        chunk: Replies that are generated and kept together: a stop loses no more than these.
        seed: Of the bootstrap.
    """

    methods: tuple[str, ...] = field(default_factory=lambda: tuple(METHODS))
    emotions: tuple[str, ...] = EMOTIONS
    events: int = 40
    tune_events: int = 6
    looks: int = 5
    max_perplexity_ratio: float = 2.5
    generation: GenerationSettings = REPLIES
    chunk: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods:
            METHODS[name]  # refuses what there is not
        for name, given in (("methods", self.methods), ("emotions", self.emotions)):
            if not given or len(set(given)) < len(given):
                raise DataError(f"Name {name} of the bake-off once each, at least one: {given!r}.")
        for name, least in (("events", 2), ("tune_events", 1), ("looks", 2), ("chunk", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} must be at least {least}, not {getattr(self, name)!r}.")
        limit = self.max_perplexity_ratio
        if not (math.isfinite(limit) and limit >= 1):
            raise DataError(f"max_perplexity_ratio must be a number from 1, not {limit!r}.")

    @property
    def budget(self) -> int:
        """Tokens that may be generated to tune one method, all emotions together."""
        replies = self.looks * self.tune_events * len(self.emotions)
        return replies * self.generation.max_new_tokens
