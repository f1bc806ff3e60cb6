"""What the encoder judge learns from.

The authored groups of the roles ``judge`` and ``tune`` only, further texts written for the judge
alone, GoEmotions, RepE's scenarios, replies of a small model (`model_texts`), and good text
corrupted in the kinds of `TRAINED`. The groups that give
directions and the test groups stay unseen, and so do the kinds of `HELD_OUT`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.core.jsonl import parse_jsonl
from affectlens.evaluation.judges.base import GARBLED, JUDGED
from affectlens.evaluation.judges.model_texts import model_texts
from affectlens.evaluation.judges.windows import Reading

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record

SOURCES: Mapping[str, str] = {
    "replies": "authored replies to scenario-events",
    "implicit": "authored replies without a word for a feeling",
    "tones": "authored texts in eight registers",
    "extra": "authored contents in all tones, and hard single texts",
    "situations": "authored situations without a word for a feeling",
    "messages": "authored messages and comments without a word for a feeling",
    "comments": "comments of people (GoEmotions)",
    "scenarios": "second-person scenarios (RepE)",
    "model": "replies of a small model",
}
"""Where the texts of the shipped judge come from."""

CLEAR_COMMENTS: Mapping[str, tuple[str, ...]] = {
    "anger": ("anger", "annoyance"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "happiness": (
        "joy",
        "amusement",
        "excitement",
        "gratitude",
        "love",
        "relief",
        "pride",
        "admiration",
    ),
    "sadness": ("sadness", "disappointment", "grief", "remorse"),
    "surprise": ("surprise",),
    "neutral": ("neutral",),
}
"""GoEmotions labels that show a tone plainly; curiosity, approval and the like are left out."""


@dataclass(frozen=True)
class Example:
    """A text to learn from.

    Attributes:
        text: Good or garbled.
        label: One of the labels of the training set.
        source: Where it comes from, one of :data:`SOURCES`; "" if that is of no account.
    """

    text: str
    label: str
    source: str = ""


@dataclass(frozen=True)
class TrainingSet:
    """What a judge learns from.

    Attributes:
        authored: Repeated often, changed a little each time.
        comments: Label -> texts, of which every epoch draws as many per label.
        scenarios: Likewise, situations in which nobody says what is felt.
        model_texts: Replies of a small model, the undecided ones left out.
        labels: Every label the judge may choose, ``garbled`` among them.
    """

    authored: Sequence[Example]
    comments: Mapping[str, Sequence[str]]
    model_texts: Sequence[Example] = ()
    labels: tuple[str, ...] = JUDGED
    scenarios: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def of(self, source: str) -> list[Example]:
        """All texts of a source."""
        told = [e for e in (*self.authored, *self.model_texts) if e.source == source]
        drawn = {"comments": self.comments, "scenarios": self.scenarios}.get(source, {})
        return told + [Example(t, label, source) for label, ts in drawn.items() for t in ts]

    def without(self, source: str) -> TrainingSet:
        """The same set, as if there were no such source."""
        return replace(
            self,
            authored=[e for e in self.authored if e.source != source],
            model_texts=[e for e in self.model_texts if e.source != source],
            comments={} if source == "comments" else self.comments,
            scenarios={} if source == "scenarios" else self.scenarios,
        )


@dataclass(frozen=True)
class FitSettings:
    """Settings of `fit_judge`.

    Attributes:
        rank: Of each weight change.
        epochs: Passes over the (freshly drawn) training set.
        learning_rate: Of the low-rank factors, at its highest; then it falls linearly to 0.
        head_learning_rate: Of the head.
        batch_size: Texts per step.
        authored_repeats: How often an epoch shows each authored text.
        model_repeats: How often it shows each reply of the small model.
        comments_per_label: Comments drawn per label and epoch.
        scenarios_per_label: Scenarios drawn per label and epoch.
        masked: Share of the authored texts and comments that are shown without their feeling words,
            so that a judge learns from what is left.
        garbled: Corrupted texts per epoch, all kinds of `TRAINED` alike.
        long_texts: Long texts per epoch, all labels alike: one text among plain ones.
        label_smoothing: Share of the target spread over all labels.
        precision: Of the arithmetic in fitting, ``"float32"`` or ``"bfloat16"``; the second is more
            than twice as fast on processors that have it, and a hundred times slower on others.
        reading: How long texts are read, in fitting and later.
        seed: Of everything random.
    """

    rank: int = 16
    epochs: int = 3
    learning_rate: float = 1.5e-3
    head_learning_rate: float = 2e-3
    batch_size: int = 32
    authored_repeats: int = 2
    model_repeats: int = 2
    comments_per_label: int = 100
    scenarios_per_label: int = 60
    masked: float = 0.2
    garbled: int = 336
    long_texts: int = 48
    label_smoothing: float = 0.05
    precision: str = "bfloat16"
    reading: Reading = field(default_factory=Reading)
    seed: int = 0


def training_set(
    authored: Sequence[Corpus], comments: Corpus, scenarios: Corpus | None = None
) -> TrainingSet:
    """Collect what a judge may see.

    Args:
        authored: Authored corpora, each a source; only the roles ``judge`` and ``tune`` are used.
        comments: GoEmotions with the original labels; only split ``fit`` is used.
        scenarios: RepE's; only splits ``fit`` and ``tune`` are used.
    """
    told = [
        Example(record.text, str(record.emotion), corpus.name)
        for corpus in authored
        for record in corpus.filter(role=("judge", "tune"))
    ]
    label_of = {fine: label for label, fines in CLEAR_COMMENTS.items() for fine in fines}
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for record in comments.filter(split="fit"):
        fine = record.meta.get("labels", ())
        if len(fine) == 1 and fine[0] in label_of:
            text = record.text.replace("[NAME]", "Sam").replace("[RELIGION]", "church")
            by_label[label_of[fine[0]]].append(text)
    if missing := [label for label in CLEAR_COMMENTS if not by_label[label]]:
        raise DataError(
            f"The comments have no single {', '.join(missing)}; load GoEmotions with "
            "mapping='original'."
        )
    situations: defaultdict[str, list[str]] = defaultdict(list)
    for record in () if scenarios is None else scenarios.filter(split=("fit", "tune")):
        situations[str(record.emotion)].append(record.text)
    texts = [*told, *extra_texts(), *unnamed_texts()]
    return TrainingSet(texts, dict(by_label), small_model_texts(), scenarios=dict(situations))


def own_training_set(
    records: Sequence[Record], labels: Sequence[str], texts: int
) -> tuple[TrainingSet, int]:
    """What a judge of other labels learns from.

    Args:
        records: Labelled, of groups that give no directions.
        labels: All labels but ``garbled``.
        texts: About so many an epoch. Fewer are repeated, changed a little each time (at most
            eight times); of more every epoch draws as many per label.

    Returns:
        The set, and how often an epoch shows each text.
    """
    examples = [Example(record.text, str(record.emotion)) for record in records]
    known = (*labels, GARBLED)
    if len(examples) <= texts:
        return TrainingSet(examples, {}, labels=known), max(1, min(8, round(texts / len(examples))))
    by_label = {label: [e.text for e in examples if e.label == label] for label in labels}
    return TrainingSet((), by_label, labels=known), 1


def small_model_texts() -> list[Example]:
    """The labelled replies of `model_texts`."""
    return [Example(row.text, row.label, "model") for row in model_texts() if row.label is not None]


def extra_texts() -> list[Example]:
    """Texts written for the judge alone: 22 contents in all seven tones, and hard single ones."""
    return [Example(row["text"], row["label"], "extra") for row in _rows("extra_texts.jsonl")]


def unnamed_texts() -> list[Example]:
    """Situations and messages in all seven tones that have no word for a feeling."""
    return [
        Example(row["text"], row["label"], row["group"].partition("-")[0])
        for row in _rows("unnamed_texts.jsonl")
    ]


def _rows(name: str) -> list[dict[str, str]]:
    source = files("affectlens.evaluation.judges").joinpath(name)
    return [dict(row) for row in parse_jsonl(source.read_text(encoding="utf-8"))]
