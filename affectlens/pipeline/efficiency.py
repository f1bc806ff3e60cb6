"""Measuring unit efficiency: every choice and number of units refined, tuned and heard alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectlens.circuits.evidence.budgets import CHOICES, RANDOM, budget_arm
from affectlens.circuits.evidence.efficiency import EfficiencyCurve, trapezia
from affectlens.core.artefact import Provenance, fingerprint, read_json
from affectlens.core.errors import ArtefactError, DataError, unknown
from affectlens.core.progress import progress
from affectlens.evaluation import (
    Reply,
    Request,
    Scores,
    choose_strengths,
    generate_replies,
    score_replies,
)
from affectlens.evaluation.perplexity import ratio_of_replies
from affectlens.evaluation.strength_search import StrengthSearch
from affectlens.pipeline.context import RunContext
from affectlens.pipeline.corpus_files import EXPRESSION, load_corpus, mixed
from affectlens.pipeline.fingerprints import generated_by
from affectlens.pipeline.kept_replies import read_replies, write_replies
from affectlens.pipeline.rules import MIX, RefineMix
from affectlens.pipeline.settings import REPLIES, TuneSettings
from affectlens.steering.refine.settings import CIRCUIT as REFINE
from affectlens.steering.refine.settings import RefineSettings
from affectlens.steering.spec import SteeringSpec

if TYPE_CHECKING:
    from affectlens.circuits import Circuit
    from affectlens.datasets import Corpus, Record
    from affectlens.models.generation.decoding import GenerationSettings
    from affectlens.steering import SteeringPack


@dataclass(frozen=True)
class EfficiencySettings:
    """What is compared; the same for every arm.

    Attributes:
        counts: Units per emotion, rising.
        choices: Of `affectlens.circuits.evidence.budgets.CHOICES`, beside the random draws.
        draws: Random sets of as many units per sublayer as the circuit has there.
        strengths: In units of the refined values. One is taken as it is; of several the best is
            chosen for every arm, count and emotion on tuning events, under
            ``max_perplexity_ratio``.
        n_events: Test events that are answered in every emotion.
        tune_events: Tuning events, where strengths are chosen.
        max_perplexity_ratio: Largest price of a strength.
        refine: Of the descent.
        mix: What is descended on.
        generation: Of all replies.
    """

    counts: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    choices: tuple[str, ...] = tuple(CHOICES)
    draws: int = 2
    strengths: tuple[float, ...] = (0.6, 0.85, 1.2)
    n_events: int = 40
    tune_events: int = 12
    max_perplexity_ratio: float = 4.0
    refine: RefineSettings = REFINE
    mix: RefineMix = MIX
    generation: GenerationSettings = field(default_factory=lambda: REPLIES)

    def __post_init__(self) -> None:
        trapezia(self.counts)
        for choice in self.choices:
            if choice not in CHOICES:
                raise unknown("choice of units", choice, CHOICES)
        if self.draws < 1:
            raise DataError("Beside a circuit stands at least one draw of random units.")
        if not self.strengths or min(self.strengths) <= 0:
            raise DataError(f"Strengths must be above 0, not {list(self.strengths)}.")
        if min(self.n_events, self.tune_events) < 1:
            raise DataError("There must be at least one event to answer.")

    @property
    def arms(self) -> tuple[str, ...]:
        """The choices, then the draws."""
        return (*self.choices, *(f"{RANDOM}_{n}" for n in range(1, self.draws + 1)))


@dataclass
class Efficiency:
    """One measurement over a run folder; cells that a stopped one has finished are kept.

    Attributes:
        context: The run: its model, judges and texts.
        circuit: Not refined, with differences for all units, of the run's model.
        settings: What is compared.
        folder: Where cells are kept.
    """

    context: RunContext
    circuit: Circuit
    settings: EfficiencySettings
    folder: Path

    def measure(self) -> EfficiencyCurve:
        """Measure all cells that are missing, then make the curve of them.

        Raises:
            MismatchError: If the circuit is of another model.
            DataError: If its differences cover its own units alone, or there are too few units.
            ArtefactError: If the run folder has no expressed emotions to refine on.
        """
        asked = self.settings
        context, circuit = self.context, self.circuit
        for count in asked.counts:  # what cannot be made is refused before anything is loaded
            budget_arm(circuit, count, asked.arms[-1])
        corpora = self._corpora
        circuit.provenance.require_model(context.model.fingerprint, context.model.name)
        cells = [(arm, count) for count in asked.counts for arm in asked.arms]
        unsteered = self._unsteered()
        left = [cell for cell in cells if not self._file(*cell).is_file()]
        with progress("unit efficiency", len(left)) as advance:
            for cell in left:
                self._work(*cell, corpora)
                advance(1)
        return self._curve(unsteered)

    @cached_property
    def _corpora(self) -> list[Corpus]:
        from affectlens.datasets import load

        path = self.context.folder / EXPRESSION
        if not path.is_file():
            raise ArtefactError(
                f"There is no {path}, which vectors are refined on; make it with `affectlens "
                "express`."
            )
        replies = load("replies").filter(role="direction", emotion=self.circuit.emotions)
        return mixed(load_corpus(path), replies, self.settings.mix)

    @cached_property
    def _key(self) -> str:
        return fingerprint(
            generated_by(self.context.model),
            self.circuit.provenance.fingerprint,
            [corpus.fingerprint for corpus in self._corpora],
            [event.id for event in self._events("test", self.settings.n_events)],
            asdict(replace(self.settings, counts=(1,), draws=1, choices=())),
        )

    def _file(self, arm: str, count: int) -> Path:
        return self.folder / self._key / f"{arm}_{count}.json"

    def _events(self, split: str, count: int) -> list[Record]:
        from affectlens.datasets import load, spread

        return spread(load("events").filter(split=split), count)

    def _unsteered(self) -> list[Reply]:
        path = self.folder / self._key / "unsteered.json"
        if not path.is_file():
            plain = [Request(e, "") for e in self._events("test", self.settings.n_events)]
            replies = generate_replies(
                self.context.model, "unsteered", plain, self.settings.generation
            )
            write_replies(path, replies)
        return read_replies(path)

    def _work(self, arm: str, count: int, corpora: Sequence[Corpus]) -> None:
        """Refine the units of one arm, choose its strengths, and let it answer."""
        from affectlens.steering import SteeringPack
        from affectlens.steering.refine import refine_circuit

        model = self.context.model
        chosen = budget_arm(self.circuit, count, arm)
        refined = refine_circuit(model, chosen, corpora, settings=self.settings.refine)
        pack = SteeringPack.from_circuit(refined, model)
        strengths = self._strengths(pack)
        requests = [
            Request(
                event,
                e,
                SteeringSpec({e: s}, mode="circuit", unit="natural", emotions=list(strengths)),
            )
            for event in self._events("test", self.settings.n_events)
            for e, s in strengths.items()
        ]
        replies = generate_replies(model, arm, requests, self.settings.generation, pack=pack)
        write_replies(self._file(arm, count), replies, strengths=strengths)

    def _strengths(self, pack: SteeringPack) -> Mapping[str, float]:
        tried = self.settings.strengths
        if len(tried) == 1:
            return dict.fromkeys(self.circuit.emotions, tried[0])
        points = self._search.search("circuit", pack, tried)
        limit = self.settings.max_perplexity_ratio
        best = choose_strengths(points, max_perplexity_ratio=limit)["circuit"]
        return {emotion: best[emotion] for emotion in self.circuit.emotions}

    @cached_property
    def _search(self) -> StrengthSearch:
        asked, run = self.settings, self.context
        rules = TuneSettings(
            emotions=self.circuit.emotions,
            max_perplexity_ratio=asked.max_perplexity_ratio,
            generation=asked.generation,
        )
        events = self._events("tune", asked.tune_events)
        search = StrengthSearch(run.model, run.judge, run.lexicon, run.embed, rules, events)
        return search.started()

    def _curve(self, unsteered: list[Reply]) -> EfficiencyCurve:
        asked, emotions = self.settings, self.circuit.emotions
        cells = [
            _cell(self._file(arm, count), unsteered, self.context, emotions)
            for arm in asked.arms
            for count in asked.counts
        ]

        def table(rows: Sequence[Sequence[float] | np.ndarray]) -> np.ndarray:
            values = np.array(rows, dtype=np.float64)
            return values.reshape(len(asked.arms), len(asked.counts), -1)

        scores = [cell.scores for cell in cells]
        return EfficiencyCurve(
            arms=asked.arms,
            counts=asked.counts,
            events=scores[0].events,
            scenarios=scores[0].groups,
            targets=scores[0].targets,
            accuracy=table([one.hit for one in scores]),
            masked_accuracy=table([one.masked for one in scores]),
            perplexity=table([cell.ratios for cell in cells]),
            strengths=table([cell.strengths for cell in cells]),
            provenance=Provenance(
                kind="efficiency",
                model=self.context.model.fingerprint,
                model_name=self.context.model.name,
                parameters=asdict(asked),
                inputs={"circuit": self.circuit.provenance.fingerprint},
            ),
        )


@dataclass(frozen=True)
class _Cell:
    """What one arm's replies at one count score."""

    scores: Scores
    ratios: list[float]
    strengths: list[float]


def _cell(
    path: Path, unsteered: Sequence[Reply], run: RunContext, emotions: Sequence[str]
) -> _Cell:
    told = read_json(path)["strengths"]
    replies = read_replies(path)
    scores = score_replies(
        replies,
        unsteered,
        judge=run.judge,
        lexicon=run.lexicon,
        embed=run.embed,
        emotions=emotions,
    )
    by_target = [[r for r in replies if r.emotion == emotion] for emotion in emotions]
    ratios = [ratio_of_replies(rows, unsteered) for rows in (*by_target, replies)]
    return _Cell(scores, ratios, [float(told[emotion]) for emotion in emotions])
