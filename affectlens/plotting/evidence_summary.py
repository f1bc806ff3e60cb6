"""The numbers that figures of a circuit's evidence are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from affectlens.circuits.evidence import (
    AblationCurve,
    Confusion,
    EnhancementCurve,
    FaithfulnessCurve,
)
from affectlens.circuits.evidence.hypotheses import TESTS, hypotheses
from affectlens.circuits.verdict import WORDS, Evidence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class CurveSummary:
    """Changes of margins by number of units, nats per token.

    Attributes:
        emotions: The first axis of all.
        counts: How many units: the second.
        change: Of the emotion's own margin, mean over texts.
        others: Of the other emotions' margins.
        random, random_low, random_high: Of random units: mean, lowest and highest draw.
        kind: ``"ablation"`` or ``"enhancement"``.
        units: ``"neurons"`` or ``"heads"``.
        by: What took the place of their values.
        texts, draws: How many.
    """

    emotions: Sequence[str]
    counts: Sequence[int]
    change: ArrayLike
    others: ArrayLike
    random: ArrayLike
    random_low: ArrayLike
    random_high: ArrayLike
    kind: str
    units: str
    by: str
    texts: int
    draws: int

    @classmethod
    def of(cls, curve: AblationCurve | EnhancementCurve) -> CurveSummary:
        """Means over texts."""
        effects = curve.effects()
        shape = len(curve.counts), len(curve.emotions)

        def table(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
            return np.array([getattr(one, name) for one in effects]).reshape(shape).T

        # Of each draw on the texts that it was run with.
        told = ~np.isnan(curve.random_changes)
        sums = np.where(told, curve.random_changes, 0.0).sum(-1)
        draws = np.where(told.any(-1), sums / told.sum(-1).clip(1), np.nan)
        asked = curve.provenance.parameters
        return cls(
            emotions=curve.emotions,
            counts=curve.counts,
            change=table("change"),
            others=table("others"),
            random=table("random"),
            random_low=np.nanmin(draws, axis=-1),
            random_high=np.nanmax(draws, axis=-1),
            kind=curve.kind,
            units=str(asked["kind"]),
            by=str(asked.get("by") or asked.get("to")),
            texts=len(curve.scenarios),
            draws=draws.shape[-1],
        )


@dataclass(frozen=True, eq=False)
class LeftSummary:
    """Faithfulness by share of the units that is left.

    Attributes:
        emotions: The first axis of all.
        shares: Percents: the second.
        f, random: Of the highest units, and of random ones.
        cpr, cmd: Areas.
        circuit, circuit_random: f of the circuit alone, and of random ones of its shape.
        without: f of the model without the circuit.
        texts: How many.
        hypotheses: What is said of each test of the circuit as a hypothesis, with its p.
    """

    emotions: Sequence[str]
    shares: Sequence[float]
    f: ArrayLike
    random: ArrayLike
    cpr: Sequence[float]
    cmd: Sequence[float]
    circuit: Sequence[float]
    circuit_random: Sequence[float]
    without: Sequence[float]
    texts: int
    hypotheses: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @classmethod
    def of(cls, curve: FaithfulnessCurve) -> LeftSummary:
        """Means over texts."""
        found = curve.results()
        return cls(
            emotions=curve.emotions,
            shares=curve.shares,
            f=[one.f for one in found],
            random=[one.random for one in found],
            cpr=[one.cpr for one in found],
            cmd=[one.cmd for one in found],
            circuit=[one.circuit for one in found],
            circuit_random=[one.circuit_random for one in found],
            without=[one.without for one in found],
            texts=len(curve.scenarios),
            hypotheses=_tested(curve),
        )


@dataclass(frozen=True, eq=False)
class ChoiceSummary:
    """Shares of texts of other tones that are gone on with in each tone.

    Attributes:
        emotions: Whose units were set: the rows.
        told: The columns.
        before, after, random: Of the model as it is, with the units set, with random ones set.
        carries: What is said of each emotion's units: identity, salience or nothing.
    """

    emotions: Sequence[str]
    told: Sequence[str]
    before: ArrayLike
    after: ArrayLike
    random: ArrayLike
    carries: Sequence[str]

    @classmethod
    def of(cls, found: Confusion) -> ChoiceSummary:
        """Means over texts."""
        return cls(
            found.emotions,
            found.told,
            **{name: found.shares(name) for name in ("before", "after", "random")},
            carries=[one.carries for one in found.results()],
        )


@dataclass(frozen=True, eq=False)
class EvidenceSummary:
    """What a report shows of a circuit's evidence.

    Attributes:
        said: Emotion → word → the finding in words.
        what: Word → what its numbers are.
        curves: Of units, by part of the evidence, those there are.
        faithfulness, choices: Likewise.
        enough: Emotion → how many of its ranked units are enough, in words; empty if untested.
    """

    said: Mapping[str, Mapping[str, str]]
    what: Mapping[str, str]
    curves: Mapping[str, CurveSummary] = field(default_factory=dict[str, CurveSummary])
    faithfulness: LeftSummary | None = None
    choices: ChoiceSummary | None = None
    enough: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, evidence: Evidence, parts: Mapping[str, object]) -> EvidenceSummary:
        """Of a verdict, and the parts it rests on (`load_parts`)."""
        emotions = list(evidence.findings)
        found = {e: {word: evidence.finding(e, word) for word in WORDS} for e in emotions}
        what = {word: one.what for word in WORDS if (one := evidence.told(word))}
        left = [one for one in parts.values() if isinstance(one, FaithfulnessCurve)]
        chosen = [one for one in parts.values() if isinstance(one, Confusion)]
        return cls(
            said={e: {word: str(one) for word, one in words.items()} for e, words in found.items()},
            what=what,
            curves={
                name: CurveSummary.of(one)
                for name, one in parts.items()
                if isinstance(one, AblationCurve | EnhancementCurve)
            },
            faithfulness=LeftSummary.of(left[0]) if left else None,
            choices=ChoiceSummary.of(chosen[0]) if chosen else None,
            enough={emotion: str(one) for emotion, one in evidence.smallest.items()},
        )


def _tested(curve: FaithfulnessCurve) -> dict[str, list[str]]:
    """Test → in words for each emotion."""
    found = hypotheses(curve)
    return {
        name: [
            word if math.isnan(p := getattr(one, name)) else f"{word} (p {p:.2g})"
            for one in found
            for word in [one.words()[name]]
        ]
        for name in TESTS
    }
