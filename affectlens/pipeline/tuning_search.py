"""Finding layers, strength, operator and positions for one emotion, by successive halving.

Candidates of a band of layers are so strong that all bands add vectors of the same total length, so
bands are compared at like doses. What counts is the harmonic score without feeling words; the whole
trade-off is kept. Replies are kept as soon as they are there, so a search that was stopped goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import Provenance, fingerprint
from affectlens.core.progress import progress
from affectlens.evaluation.arm_metrics import summarise
from affectlens.evaluation.divergence import kl_to_unsteered
from affectlens.evaluation.halving import Outcome, best_of, rungs, successive_halving
from affectlens.evaluation.judges.base import require_labels
from affectlens.evaluation.no_effect import Effect, reason
from affectlens.evaluation.replies import Request, encode_event, generate_replies
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.reply_scores import Scores, score_replies
from affectlens.pipeline.fingerprints import generated_by
from affectlens.pipeline.kept_replies import read_replies, write_replies
from affectlens.pipeline.tuning_candidates import Candidate, SearchSettings, candidates_of
from affectlens.pipeline.tuning_found import Found, Tried
from affectlens.steering.bands import banded, relative_size, within

if TYPE_CHECKING:
    from affectlens.datasets import Record
    from affectlens.pipeline.context import RunContext
    from affectlens.steering import SteeringPack

AT_ONCE = 64
"""Replies that are generated before they are kept."""


@dataclass
class TuningSearch:
    """One search.

    Attributes:
        context: Model and judges.
        pack: To steer with.
        events: Tuning events, as many as there are.
        settings: What is tried.
        folder: Where replies are kept.
    """

    context: RunContext
    pack: SteeringPack
    events: Sequence[Record]
    settings: SearchSettings
    folder: Path

    def run(self) -> Found:
        """Search.

        Raises:
            UnknownNameError: If the pack lacks the emotion, a mode or a layer.
            DataError: If the budget does not pay for one reply of every candidate, or the judge
                never says the emotion.
        """
        asked = self.settings
        require_labels(self.context.judge, [asked.emotion])
        plan = rungs(
            len(self.candidates),
            asked.budget,
            asked.generation.max_new_tokens,
            most_events=len(self.events),
            keep=asked.keep,
        )
        told: list[Tried] = []

        def measure(some: Sequence[Candidate], events: int) -> list[Outcome[Candidate]]:
            self._answer(some, events)
            found = [self._tried(candidate, events) for candidate in some]
            told.extend(found)
            return [
                Outcome(t.candidate, t.events, t.metrics.masked_harmonic, t.broken, t.tokens)
                for t in found
            ]

        last = best_of(successive_halving(self.candidates, plan, measure))
        at = None if last is None else (last.candidate, last.events)
        best = next((t for t in told if (t.candidate, t.events) == at), None)
        shown = best or min(told, key=lambda t: t.metrics.perplexity_ratio)
        effect = self._effect(shown)
        return Found(
            tried=told,
            best=best,
            spec=str(shown.candidate.spec(asked.emotion, self.pack.emotions, asked.gate)),
            pack=None if best is None else self._kept(best.candidate),
            effect=effect,
            reason=reason(effect, max_perplexity_ratio=asked.max_perplexity_ratio),
            tokens=sum({t.candidate: t.tokens for t in told}.values()),
        )

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Every combination."""
        return candidates_of(self.pack, self.settings)

    @cached_property
    def _banded(self) -> SteeringPack:
        """The emotion at every band, so that candidates share batches."""
        bands: defaultdict[str, dict[str, Sequence[int]]] = defaultdict(dict)
        for candidate in self.candidates:
            bands[candidate.band][candidate.mode] = candidate.layers
        return banded(self.pack, self.settings.emotion, bands)

    def _kept(self, candidate: Candidate) -> SteeringPack:
        e = self.settings.emotion
        told = {**asdict(candidate), "gate": self.settings.gate}
        return (
            within(self.pack, candidate.mode, e, candidate.layers)
            .with_recommended(
                candidate.mode,
                {e: candidate.strength},
                positions=candidate.positions,
                parameters={"tuned": {e: told}},
            )
            .with_first(candidate.mode)
        )

    def _answer(self, some: Sequence[Candidate], events: int) -> None:
        """Let candidates answer the first so many events, as far as they have not."""
        bands = self._banded.emotions
        waiting: list[tuple[Candidate, list[Reply], list[Request]]] = []
        for candidate in some:
            kept = self._read(_name(candidate))
            spec = candidate.spec(candidate.band, bands, self.settings.gate)
            left = self.events[len(kept) : events]
            if left:
                asked = [Request(event, self.settings.emotion, spec) for event in left]
                waiting.append((candidate, kept, asked))
        total = sum(len(asked) for _, _, asked in waiting)
        with progress(f"{len(some)} candidates on {events} events", total) as advance:
            while waiting:
                now = [waiting.pop(0)]
                while waiting and sum(len(a) for _, _, a in now) + len(waiting[0][2]) <= AT_ONCE:
                    now.append(waiting.pop(0))
                replies = iter(
                    generate_replies(
                        self.context.model,
                        "search",
                        [one for _, _, asked in now for one in asked],
                        self.settings.generation,
                        pack=self._banded,
                        advance=advance,
                    )
                )
                for candidate, kept, asked in now:
                    self._write(_name(candidate), [*kept, *(next(replies) for _ in asked)])

    def _tried(self, candidate: Candidate, events: int) -> Tried:
        replies = self._read(_name(candidate))[:events]
        metrics = summarise(self._scores(replies, events, naming=True))
        broken = not metrics.perplexity_ratio <= self.settings.max_perplexity_ratio
        return Tried(candidate, events, metrics, broken, sum(r.tokens for r in replies))

    def _scores(self, replies: Sequence[Reply], events: int, *, naming: bool) -> Scores:
        return score_replies(
            replies,
            self._unsteered[:events],
            judge=self.context.judge,
            lexicon=self.context.lexicon,
            embed=self.context.embed,
            emotions=self.pack.emotions,
            naming=naming,
        )

    @cached_property
    def _unsteered(self) -> list[Reply]:
        kept = self._read("unsteered")
        if len(kept) < len(self.events):
            plain = [Request(event, "") for event in self.events]
            with progress("unsteered", len(plain)) as advance:
                kept = generate_replies(
                    self.context.model,
                    "unsteered",
                    plain,
                    self.settings.generation,
                    advance=advance,
                )
            self._write("unsteered", kept)
            kept = self._read("unsteered")  # as a later run will see them, rounded
        return kept

    def _effect(self, shown: Tried) -> Effect:
        """What is measured of a candidate, to say why it works or not."""
        e, n = self.settings.emotion, shown.events
        plain = self._scores([replace(r, emotion=e) for r in self._unsteered[:n]], n, naming=False)
        candidate, found = shown.candidate, shown.metrics
        return Effect(
            heard=found.accuracy - float(plain.hit.mean()),
            named=found.lexicon_accuracy - float(plain.lexicon.mean()),
            perplexity_ratio=found.perplexity_ratio,
            kl=self._kl(candidate, self.settings.gate),
            kl_ungated=None if self.settings.gate is None else self._kl(candidate, None),
            size=relative_size(self.pack, candidate.mode, e, candidate.layers, candidate.strength),
        )

    def _kl(self, candidate: Candidate, gate: str | None) -> float:
        """Nats per token from the unsteered distribution, on unsteered replies."""
        model, n = self.context.model, self.settings.kl_events
        events, read = self.events[:n], model.tokenizer
        spec = candidate.spec(candidate.band, self._banded.emotions, gate)
        nats = kl_to_unsteered(
            model,
            self._banded,
            [spec] * len(events),
            [encode_event(model, event) for event in events],
            [read(r.text, add_special_tokens=False)["input_ids"] for r in self._unsteered[:n]],
        )
        return float(np.nanmean(nats))

    def _read(self, name: str) -> list[Reply]:
        return read_replies(self._file(name))

    def _write(self, name: str, replies: Sequence[Reply]) -> None:
        write_replies(self._file(name), replies)

    def _file(self, name: str) -> Path:
        return self.folder / self._key / f"{name}.json"

    @cached_property
    def _key(self) -> str:
        bare = replace(self.pack, responses={}, provenance=Provenance("pack"))
        return fingerprint(
            generated_by(self.context.model),
            bare.fingerprint,
            self.settings.emotion,
            self.settings.gate,
            asdict(self.settings.generation),
            [event.id for event in self.events],
        )


def _name(candidate: Candidate) -> str:
    return fingerprint(asdict(candidate))
