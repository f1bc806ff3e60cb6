"""What a report shows: the numbers of a run, without its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from affectlens.evaluation import ArmMetrics, Comparison, Reply, StrengthPoint
from affectlens.geometry.emotion_map import EmotionMap
from affectlens.plotting import (
    CircuitSummary,
    DirectionsSummary,
    EvidenceSummary,
    SweepSummary,
)
from affectlens.plotting.studies import StudySummary
from affectlens.plotting.sweeps import SweepsSummary


@dataclass(frozen=True)
class Header:
    """What was run, on what, and what it cost.

    Attributes:
        seconds: Wall-clock seconds per stage, in the order they ran.
        peak_memory: Bytes of resident memory at the peak.
        facts: Any other line for the header (device, seed, number of records).
        notices: What a reader has to know about the texts, a sentence each.
    """

    model: str
    model_fingerprint: str = ""
    corpus: str = ""
    corpus_fingerprint: str = ""
    date: str = ""
    package_version: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    peak_memory: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    notices: Sequence[str] = ()


@dataclass(frozen=True)
class Tuning:
    """Strength against accuracy and fluency, and the strengths chosen: arm -> emotion -> s."""

    points: Sequence[StrengthPoint]
    chosen: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )


@dataclass(frozen=True)
class Heard:
    """A reply and, if it was judged, the emotion heard in it."""

    reply: Reply
    judged: str | None = None


@dataclass(frozen=True)
class Example:
    """Replies to one prompt, of several arms and targets, beside the unsteered one."""

    prompt: str
    replies: Sequence[Heard]
    unsteered: Heard | None = None

    def reply(self, emotion: str, arm: str) -> Heard | None:
        """The reply of an arm for a target, if there is one."""
        for heard in self.replies:
            if (heard.reply.emotion, heard.reply.arm) == (emotion, arm):
                return heard
        return None


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show; what is ``None`` or empty is left out.

    Attributes:
        header: What was run.
        probes, directions, circuit: Numbers of the artefacts.
        emotion_map: Of the directions.
        evidence: What tests of the circuit found.
        tuning: Strengths that were tried, and chosen.
        arms: Measures by name of the arm, in the order to show.
        comparisons: Of arms in pairs.
        judges: Of `affectlens.evaluation.judges.judge_report`: how far they can be trusted.
        examples: The same prompts in every emotion.
        sweeps: Probes of several models, corpora or targets.
        studies: What was asked of probes beyond where they read.
    """

    header: Header
    probes: SweepSummary | None = None
    directions: DirectionsSummary | None = None
    emotion_map: EmotionMap | None = None
    circuit: CircuitSummary | None = None
    evidence: EvidenceSummary | None = None
    tuning: Tuning | None = None
    arms: Mapping[str, ArmMetrics] = field(default_factory=dict[str, ArmMetrics])
    comparisons: Sequence[Comparison] = ()
    judges: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Example] = ()
    sweeps: SweepsSummary | None = None
    studies: Sequence[StudySummary] = ()
