"""What the encoder judge learns from, and how an epoch of it is drawn.

The authored groups of the roles ``judge`` and ``tune`` only, further texts written for the judge
alone, GoEmotions, replies of a small model (`model_texts`), and good text corrupted in the kinds of
`TRAINED`. The groups that give
directions and the test groups stay unseen, and so do the kinds of `HELD_OUT`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from affectlens.core import NEUTRAL, DataError
from affectlens.core.jsonl import parse_jsonl
from affectlens.evaluation.judges.base import GARBLED, JUDGED
from affectlens.evaluation.judges.garbling import cut_short, garble
from affectlens.evaluation.judges.model_texts import model_texts
from affectlens.evaluation.judges.windows import Reading

if TYPE_CHECKING:
    from affectlens.datasets.schema import Corpus, Record

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
    """

    text: str
    label: str


@dataclass(frozen=True)
class TrainingSet:
    """What a judge learns from.

    Attributes:
        authored: Repeated often, changed a little each time.
        comments: Label -> texts, of which every epoch draws as many per label.
        model_texts: Replies of a small model, the undecided ones left out.
        labels: Every label the judge may choose, ``garbled`` among them.
    """

    authored: Sequence[Example]
    comments: Mapping[str, Sequence[str]]
    model_texts: Sequence[Example] = ()
    labels: tuple[str, ...] = JUDGED


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
        garbled: Corrupted texts per epoch, all kinds of `TRAINED` alike.
        long_texts: Long texts per epoch, all labels alike: one text among plain ones.
        label_smoothing: Share of the target spread over all labels.
        reading: How long texts are read, in fitting and later.
        seed: Of everything random.
    """

    rank: int = 16
    epochs: int = 2
    learning_rate: float = 1.5e-3
    head_learning_rate: float = 2e-3
    batch_size: int = 32
    authored_repeats: int = 3
    model_repeats: int = 3
    comments_per_label: int = 100
    garbled: int = 504
    long_texts: int = 64
    label_smoothing: float = 0.05
    reading: Reading = field(default_factory=Reading)
    seed: int = 0


def training_set(replies: Corpus, tones: Corpus, comments: Corpus) -> TrainingSet:
    """Collect what a judge may see.

    Args:
        replies: The authored replies; only the roles ``judge`` and ``tune`` are used.
        tones: The authored tones; the same.
        comments: GoEmotions with the original labels; only split ``fit`` is used.
    """
    authored = [
        Example(record.text, str(record.emotion))
        for corpus in (replies, tones)
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
    return TrainingSet([*authored, *extra_texts()], dict(by_label), small_model_texts())


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
        return TrainingSet(examples, {}, (), known), max(1, min(8, round(texts / len(examples))))
    by_label = {label: [e.text for e in examples if e.label == label] for label in labels}
    return TrainingSet((), by_label, (), known), 1


def small_model_texts() -> list[Example]:
    """The labelled replies of `model_texts`."""
    return [Example(row.text, row.label) for row in model_texts() if row.label is not None]


def extra_texts() -> list[Example]:
    """Texts written for the judge alone: 22 contents in all seven tones, and hard single ones."""
    source = files("affectlens.evaluation.judges").joinpath("extra_texts.jsonl")
    rows = parse_jsonl(source.read_text(encoding="utf-8"))
    return [Example(row["text"], row["label"]) for row in rows]


def epoch_examples(
    data: TrainingSet, settings: FitSettings, epoch: int, pieces: Sequence[str]
) -> list[Example]:
    """Draw, cut, vary and corrupt the texts of one epoch; seeded, in random order."""
    rng = random.Random(f"{settings.seed}/{epoch}")
    comments = {
        label: rng.sample(list(texts), min(settings.comments_per_label, len(texts)))
        for label, texts in data.comments.items()
    }
    drawn = [
        Example(_maybe_cut(text, rng), label) for label, texts in comments.items() for text in texts
    ]
    for example in data.authored:
        for _ in range(settings.authored_repeats):
            drawn.append(replace(example, text=_varied(example.text, rng)))
    for example in data.model_texts:
        for _ in range(settings.model_repeats):
            drawn.append(replace(example, text=_maybe_cut(example.text, rng)))
    good = [e.text for e in (*data.authored, *data.model_texts) if e.label != GARBLED]
    good += [text for texts in comments.values() for text in texts[:100]]
    corrupted = garble(good, settings.garbled, seed=rng.randrange(2**32), pieces=pieces)
    drawn += [Example(made.text, GARBLED) for made in corrupted]
    drawn += _long_texts(drawn, data.labels, settings.long_texts, rng)
    rng.shuffle(drawn)
    return drawn


def _long_texts(
    drawn: Sequence[Example], known: Sequence[str], n: int, rng: random.Random
) -> list[Example]:
    """Texts of 40 to 280 words, each with the label of the one text in it that is not plain.

    Text that ends in garbled text is garbled, as nobody would read on.
    """
    by_label: defaultdict[str, list[str]] = defaultdict(list)
    for example in drawn:
        if len(example.text.split()) >= 8:
            by_label[example.label].append(example.text)
    labels = [label for label in known if by_label[label]]
    made: list[Example] = []
    while by_label[NEUTRAL] and len(made) < n:
        label = labels[len(made) % len(labels)]
        told = rng.choice(by_label[label])
        plain = [rng.choice(by_label[NEUTRAL])]
        least = rng.randint(40, 240)
        while sum(len(text.split()) for text in plain) < least:
            plain.append(rng.choice(by_label[NEUTRAL]))
        place = len(plain) if label == GARBLED else rng.randint(0, len(plain))
        plain.insert(place, told)
        made.append(Example(rng.choice((" ", " ", "\n")).join(plain), label))
    return made


def _maybe_cut(text: str, rng: random.Random) -> str:
    return cut_short(text, rng) if rng.random() < 0.4 else text


def _varied(text: str, rng: random.Random) -> str:
    """Cut, or with other case and punctuation, so that neither tells the tone."""
    text = _maybe_cut(text, rng)
    chance = rng.random()
    if chance < 0.12:
        return text.rstrip(".!?")
    if chance < 0.18:
        return text.upper() if rng.random() < 0.3 else text.lower()
    return text.replace(".", "!") if chance < 0.24 else text


def batches(examples: Sequence[Example], size: int, seed: str) -> Iterator[list[Example]]:
    """Batches of texts of like length, in random order."""
    rng = random.Random(seed)
    made: list[list[Example]] = []
    for start in range(0, len(examples), size * 20):
        chunk = sorted(examples[start : start + size * 20], key=lambda e: len(e.text))
        made += [chunk[i : i + size] for i in range(0, len(chunk), size)]
    rng.shuffle(made)
    yield from made
