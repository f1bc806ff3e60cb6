"""What a report shows, as plain values: no other package of ours is needed to build one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_NAN = float("nan")


def _require(name: str, value: ArrayLike | None, *shape: int | None) -> None:
    """Check the shape of an array; ``None`` in ``shape`` accepts any length."""
    if value is None:
        return
    found = np.shape(value)
    if len(found) != len(shape) or any(
        w not in (None, f) for f, w in zip(found, shape, strict=True)
    ):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise DataError(f"{name} has shape {list(found)} but the report needs [{wanted}].")


@dataclass(frozen=True)
class Header:
    """What was run, on what, and what it cost.

    Attributes:
        seconds: Wall-clock seconds per stage, in the order they ran.
        peak_memory: Bytes of resident memory at the peak.
        facts: Any other line for the header (device, seed, number of records).
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


@dataclass(frozen=True)
class Probes:
    """Held-out probe accuracy by layer; ``best`` indexes ``layers``."""

    layers: Sequence[int]
    accuracy: ArrayLike
    low: ArrayLike
    high: ArrayLike
    chance: float
    best: int
    site: str = "resid_post"
    control: ArrayLike | None = None
    baselines: Mapping[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        for name in ("accuracy", "low", "high", "control"):
            _require(f"probes.{name}", getattr(self, name), len(self.layers))
        if not 0 <= self.best < len(self.layers):
            raise DataError(f"probes.best is {self.best} but there are {len(self.layers)} layers.")


@dataclass(frozen=True)
class Directions:
    """Cosines ``[emotion, emotion]`` at one layer; split-half cosines ``[layer, emotion]``."""

    labels: Sequence[str]
    cosines: ArrayLike
    layer: int
    layers: Sequence[int] = ()
    split_half: ArrayLike | None = None
    estimator: str = "group_centred"

    def __post_init__(self) -> None:
        count = len(self.labels)
        _require("directions.cosines", self.cosines, count, count)
        _require("directions.split_half", self.split_half, len(self.layers), count)


@dataclass(frozen=True)
class EmotionMap:
    """Directions on two principal axes, ``[emotion, 2]``, and the variance each explains."""

    labels: Sequence[str]
    xy: ArrayLike
    explained: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _require("map.xy", self.xy, len(self.labels), 2)
        _require("map.explained", self.explained, 2)


@dataclass(frozen=True)
class CircuitData:
    """Units that write each emotion.

    Attributes:
        heads: Mean contribution, ``[emotion, layer, head]``.
        neurons: Mean contribution of the strongest neurons, sorted, ``[emotion, layer, rank]``.
        influence: ``[emotion, layer, 2]``, attention then MLP.
        counts: Units chosen, ``[emotion, layer, 2]``, heads then neurons.
        overlap: Units two circuits share, ``[emotion, emotion]``.
        overlap_chance: The same for random units with equal allocation.
    """

    labels: Sequence[str]
    layers: Sequence[int]
    heads: ArrayLike | None = None
    neurons: ArrayLike | None = None
    influence: ArrayLike | None = None
    counts: ArrayLike | None = None
    overlap: ArrayLike | None = None
    overlap_chance: ArrayLike | None = None

    def __post_init__(self) -> None:
        emotions, layers = len(self.labels), len(self.layers)
        for name in ("heads", "neurons"):
            _require(f"circuit.{name}", getattr(self, name), emotions, layers, None)
        for name in ("influence", "counts"):
            _require(f"circuit.{name}", getattr(self, name), emotions, layers, 2)
        for name in ("overlap", "overlap_chance"):
            _require(f"circuit.{name}", getattr(self, name), emotions, emotions)
        if (self.overlap is None) != (self.overlap_chance is None):
            raise DataError("circuit.overlap and circuit.overlap_chance must be given together.")


@dataclass(frozen=True)
class StrengthPoint:
    """One measurement on the tuning scenarios; ``emotion`` may be "" for all together."""

    arm: str
    emotion: str
    strength: float
    accuracy: float
    perplexity_ratio: float


@dataclass(frozen=True)
class Tuning:
    """Strength against accuracy and fluency, and the strengths chosen: arm -> emotion -> s."""

    points: Sequence[StrengthPoint]
    chosen: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )


@dataclass(frozen=True)
class Share:
    """A share of replies, with its 95 % interval over scenarios."""

    value: float
    low: float = _NAN
    high: float = _NAN


@dataclass(frozen=True)
class Arm:
    """One way to make the model emotional, measured on the test scenarios.

    Attributes:
        name: By which comparisons and examples name it.
        accuracy: Share judged as the target emotion, with 95 % interval ``low``..``high``.
        title: For people; the name if empty.
        masked: Accuracy with every feeling word taken out of the reply.
        later: Accuracy without the first sentence.
        copied: Share of replies that begin like an opener the vectors were made from.
        perplexity_ratio: Under the unsteered model, relative to unsteered text.
        distinct_2: Distinct bigrams over all bigrams.
        repetition: Share of text that repeats itself.
        capitals: Share of letters that are capitals.
        topic: Similarity of reply to prompt, in [0, 1].
        harmonic: Harmonic mean of the emotion, topic and fluency scores.
        masked_harmonic: The same with feeling words taken out for the emotion score.
        per_emotion: Accuracy per target emotion.
        other_judges: Accuracy according to further judges, by name.
        n: Number of replies.
    """

    name: str
    accuracy: float
    low: float
    high: float
    title: str = ""
    masked: Share | None = None
    later: Share | None = None
    copied: Share | None = None
    perplexity_ratio: float = _NAN
    distinct_2: float = _NAN
    repetition: float = _NAN
    capitals: float = _NAN
    topic: float = _NAN
    harmonic: float = _NAN
    masked_harmonic: float = _NAN
    per_emotion: Mapping[str, float] = field(default_factory=dict[str, float])
    other_judges: Mapping[str, float] = field(default_factory=dict[str, float])
    n: int | None = None

    @property
    def label(self) -> str:
        """What people read."""
        return self.title or self.name


@dataclass(frozen=True)
class Comparison:
    """One arm minus another on one measure, by paired bootstrap over scenarios.

    Attributes:
        arm, control: Names of the arms.
        measure: ``"accuracy"``, ``"masked_accuracy"`` or ``"harmonic"``.
        difference: Mean of the arm minus mean of the control.
        low, high: 95 % interval.
        p: Two-sided, not corrected for the number of comparisons.
    """

    arm: str
    control: str
    measure: str
    difference: float
    low: float = _NAN
    high: float = _NAN
    p: float = _NAN


@dataclass(frozen=True)
class CrossCorpus:
    """Accuracy of a judge fitted on one corpus and asked about another."""

    fitted: str
    asked: str
    accuracy: float
    n: int | None = None


@dataclass(frozen=True)
class Judge:
    """How far the ruler itself can be trusted; ``confusion`` is ``[true, judged]``."""

    name: str
    labels: Sequence[str]
    confusion: ArrayLike | None = None
    cross_corpus: Sequence[CrossCorpus] = ()

    def __post_init__(self) -> None:
        _require("judge.confusion", self.confusion, len(self.labels), len(self.labels))


@dataclass(frozen=True)
class Evaluation:
    """Arms on test scenarios, and the judges that scored them.

    Attributes:
        labels: The targets.
        arms: In the order to show.
        false_hits: Share of unsteered replies in which the judge hears the target all the same,
            mean over targets: what an arm that does nothing scores.
        judges: How far they can be trusted.
        comparisons: Of arms in pairs.
    """

    labels: Sequence[str]
    arms: Sequence[Arm]
    false_hits: float | None = None
    judges: Sequence[Judge] = ()
    comparisons: Sequence[Comparison] = ()


@dataclass(frozen=True)
class Reply:
    """One generated text and, if judged, the emotion heard in it."""

    text: str
    judged: str | None = None


@dataclass(frozen=True)
class Example:
    """Replies to one prompt: emotion -> arm -> reply, beside the unsteered one."""

    prompt: str
    replies: Mapping[str, Mapping[str, Reply]]
    unsteered: Reply | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything a report can show; what is ``None`` or empty is left out."""

    header: Header
    probes: Probes | None = None
    directions: Directions | None = None
    emotion_map: EmotionMap | None = None
    circuit: CircuitData | None = None
    tuning: Tuning | None = None
    evaluation: Evaluation | None = None
    examples: Sequence[Example] = ()
