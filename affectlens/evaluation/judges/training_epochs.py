"""How an epoch of a judge's training is drawn: seeded, a little different each time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from affectlens.core import NEUTRAL
from affectlens.evaluation.judges.base import GARBLED
from affectlens.evaluation.judges.garbling import cut_short, garble
from affectlens.evaluation.judges.training_data import Example, FitSettings, TrainingSet
from affectlens.evaluation.naming import mask_feelings


def epoch_examples(
    data: TrainingSet, settings: FitSettings, epoch: int, pieces: Sequence[str]
) -> list[Example]:
    """Draw, cut, vary and corrupt the texts of one epoch; seeded, in random order."""
    rng = random.Random(f"{settings.seed}/{epoch}")
    comments = _sampled(data.comments, settings.comments_per_label, rng)
    situations = _sampled(data.scenarios, settings.scenarios_per_label, rng)
    drawn = [
        Example(_maybe_cut(_unnamed(text, settings.masked, rng), rng), label)
        for label, texts in comments.items()
        for text in texts
    ]
    drawn += [
        Example(_varied(text, rng), label) for label, texts in situations.items() for text in texts
    ]
    for example in data.authored:
        for _ in range(settings.authored_repeats):
            text = _unnamed(example.text, settings.masked, rng)
            drawn.append(replace(example, text=_varied(text, rng)))
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


def _sampled(pool: Mapping[str, Sequence[str]], n: int, rng: random.Random) -> dict[str, list[str]]:
    """At most so many texts per label."""
    return {label: rng.sample(list(texts), min(n, len(texts))) for label, texts in pool.items()}


def _unnamed(text: str, share: float, rng: random.Random) -> str:
    """Without its feeling words, by chance; a text that hardly has others stays as it is."""
    if not share or rng.random() >= share:
        return text
    left = mask_feelings(text)
    return left if len(left.split()) >= max(5, 0.6 * len(text.split())) else text


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
