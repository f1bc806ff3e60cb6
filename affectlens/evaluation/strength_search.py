"""Measuring strengths on tuning scenarios: all strengths and emotions of an arm in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from affectlens.core.progress import progress
from affectlens.evaluation.arms import ARMS, UNSTEERED
from affectlens.evaluation.judges.base import UNJUDGED
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.evaluation.replies import Request, generate_replies
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.reply_scores import known_mean, score_replies
from affectlens.evaluation.tuning import StrengthPoint, beyond, choose_strengths
from affectlens.steering.spec import MAX_STRENGTH, SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.reply_scores import Embed
    from affectlens.models import LanguageModel
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack


class SearchRules(Protocol):
    """How strengths are looked for."""

    @property
    def emotions(self) -> tuple[str, ...]:
        """Each gets a strength."""
        ...

    @property
    def generation(self) -> GenerationSettings:
        """Of all replies."""
        ...

    @property
    def max_perplexity_ratio(self) -> float:
        """Strengths that cost more are not considered."""
        ...

    @property
    def extensions(self) -> int:
        """How often a grid may be widened where its best strength lies at its end."""
        ...


@dataclass(frozen=True)
class StrengthSearch:
    """What all arms share when their strengths are chosen.

    Attributes:
        model: Generates, and puts a perplexity on every reply.
        judge, lexicon: Whose verdicts are scored.
        embed: Sentence embeddings, for the topic.
        rules: How strengths are looked for.
        events: Neutral prompts of the tuning split.
        unsteered: Replies to them, the reference for perplexity and topic.
    """

    model: LanguageModel
    judge: Judge
    lexicon: Judge
    embed: Embed
    rules: SearchRules
    events: Sequence[Record]
    unsteered: Sequence[Reply] = ()

    def started(self) -> StrengthSearch:
        """The same with the unsteered replies, generated once for all arms."""
        plain = [Request(event, "") for event in self.events]
        replies = generate_replies(self.model, UNSTEERED, plain, self.rules.generation)
        return replace(self, unsteered=replies)

    def search(
        self, arm: str, pack: SteeringPack, strengths: Sequence[float]
    ) -> list[StrengthPoint]:
        """Measure an arm's grid, and go on beyond it where the best strength lies at its end.

        Args:
            arm: One of `affectlens.evaluation.ARMS`, for its mode and its name.
            pack: The vectors.
            strengths: The grid, in natural units; at least two.

        Returns:
            Every strength that was tried, emotion by emotion.
        """
        points = self.points(arm, pack, [(s, e) for s in strengths for e in self.rules.emotions])
        for _ in range(self.rules.extensions):
            limit = self.rules.max_perplexity_ratio
            chosen = choose_strengths(points, max_perplexity_ratio=limit)
            largest = MAX_STRENGTH["natural"]
            further = beyond(points, chosen, largest=largest, max_perplexity_ratio=limit)
            if not further:
                break
            points += self.points(arm, pack, [(s, e) for (_, e), s in further.items()])
        return points

    def points(
        self, arm: str, pack: SteeringPack, cells: Sequence[tuple[float, str]]
    ) -> list[StrengthPoint]:
        """Accuracy, perplexity ratio and harmonic score of each strength and emotion.

        Args:
            arm: As of `search`.
            pack: The vectors.
            cells: (strength in natural units, emotion).
        """
        mode = ARMS[arm].mode
        requests = [
            Request(
                event,
                e,
                SteeringSpec({e: s}, mode=mode, unit="natural", emotions=self.rules.emotions),
            )
            for event in self.events
            for s, e in cells
        ]
        with progress(f"tuning {ARMS[arm].title}", len(requests)) as advance:
            replies = generate_replies(
                self.model, arm, requests, self.rules.generation, pack=pack, advance=advance
            )
        scores = score_replies(
            replies,
            self.unsteered,
            judge=self.judge,
            lexicon=self.lexicon,
            embed=self.embed,
            emotions=self.rules.emotions,
        )
        said = self.judge([reply.text for reply in self.unsteered]).chosen
        plain = [label for label in said if label != UNJUDGED]
        points: list[StrengthPoint] = []
        for i, (s, e) in enumerate(cells):
            own = slice(i, None, len(cells))  # every reply has a target, and so one row
            accuracy, harmonic = known_mean(scores.hit[own]), known_mean(scores.harmonic[own])
            ratio = ratio_of_replies(replies[own], self.unsteered)
            masked = known_mean(scores.masked_harmonic[own])
            heard = sum(label == e for label in plain) / len(plain) if plain else math.nan
            points.append(StrengthPoint(arm, e, s, accuracy, ratio, harmonic, masked, heard))
        return points
