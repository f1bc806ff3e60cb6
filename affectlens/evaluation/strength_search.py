"""Measuring strengths on tuning scenarios: all strengths and emotions of an arm in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from affectlens.core.progress import progress
from affectlens.evaluation import (
    ARMS,
    Reply,
    Request,
    StrengthPoint,
    beyond,
    choose_strengths,
    generate_replies,
    perplexity_ratio,
    score_replies,
)
from affectlens.steering.spec import MAX_STRENGTH, SteeringSpec

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.evaluation.judges import Judge
    from affectlens.evaluation.topic import Embedder
    from affectlens.models import LanguageModel
    from affectlens.pipeline.settings import TuneSettings
    from affectlens.steering import SteeringPack


class Ruler(Protocol):
    """What strengths are measured with: a stage at work, or whatever has a model and judges."""

    @property
    def settings(self) -> Any:
        """`TuneSettings`."""
        ...

    @property
    def model(self) -> LanguageModel:
        """What is steered."""
        ...

    @property
    def judge(self) -> Judge:
        """The blind judge."""
        ...

    @property
    def lexicon(self) -> Judge:
        """The second judge."""
        ...

    @property
    def embed(self) -> Embedder:
        """Sentence embeddings."""
        ...


@dataclass(frozen=True)
class Tuner:
    """What all arms share when their strengths are chosen.

    Attributes:
        run: Model, judges, decoding.
        events: Neutral prompts of the tuning split.
        unsteered: Replies to them, the reference for perplexity and topic.
    """

    run: Ruler
    events: Sequence[Record]
    unsteered: Sequence[Reply]

    @classmethod
    def start(cls, run: Ruler, events: Sequence[Record]) -> Tuner:
        """Generate the unsteered replies, once for all arms."""
        settings: TuneSettings = run.settings
        plain = [Request(event, "") for event in events]
        replies = generate_replies(run.model, "unsteered", plain, settings.generation)
        return cls(run, events, replies)

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
        settings: TuneSettings = self.run.settings
        points = self.points(arm, pack, [(s, e) for s in strengths for e in settings.emotions])
        for _ in range(settings.extensions):
            limit = settings.max_perplexity_ratio
            chosen = choose_strengths(points, max_perplexity_ratio=limit)
            further = beyond(points, chosen, largest=MAX_STRENGTH["natural"])
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
        settings: TuneSettings = self.run.settings
        mode = ARMS[arm].mode
        requests = [
            Request(event, e, SteeringSpec({e: s}, mode=mode, unit="natural"))
            for event in self.events
            for s, e in cells
        ]
        with progress(f"tuning {ARMS[arm].title}", len(requests)) as advance:
            replies = generate_replies(
                self.run.model, arm, requests, settings.generation, pack=pack, advance=advance
            )
        scores = score_replies(
            replies,
            self.unsteered,
            judge=self.run.judge,
            lexicon=self.run.lexicon,
            embed=self.run.embed,
            emotions=settings.emotions,
            naming=False,
        )
        points: list[StrengthPoint] = []
        for i, (s, e) in enumerate(cells):
            own = slice(i, None, len(cells))  # every reply has a target, and so one row
            accuracy, harmonic = float(scores.hit[own].mean()), float(scores.harmonic[own].mean())
            points.append(StrengthPoint(arm, e, s, accuracy, self._ratio(replies[own]), harmonic))
        return points

    def _ratio(self, replies: Sequence[Reply]) -> float:
        """Perplexity ratio of some replies to the unsteered ones."""
        nll, tokens = np.array([r.nll for r in replies]), [r.tokens for r in replies]
        base, count = np.array([r.nll for r in self.unsteered]), [r.tokens for r in self.unsteered]
        return perplexity_ratio(nll, tokens, base, count)
