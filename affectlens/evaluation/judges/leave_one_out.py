"""How a judge does on a kind of text that it has never read: fitted without each source in turn.

Accuracy on unseen groups of known sources says that a judge knows its authors. What counts for a
stranger's texts is how it does on another author's, so each source is held out as a whole, a judge
is fitted on the rest, and the source is read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectlens.core import EMOTIONS, DataError
from affectlens.core.errors import unknown
from affectlens.evaluation.judges.training_data import SOURCES, Example, FitSettings, TrainingSet

if TYPE_CHECKING:
    from affectlens.evaluation.judges.base import Verdicts

PER_LABEL = 100
"""Most texts of a label that are read of a source."""

BRIEF = FitSettings(epochs=1, authored_repeats=1, model_repeats=1, garbled=144, long_texts=16)
"""A fifth of the steps of the shipped fit, so that nine fits cost two: if anything, each of these
judges is worse than one that was fitted in full."""


@dataclass(frozen=True)
class HeldOutSource:
    """A judge on the source that it was fitted without.

    Attributes:
        source: One of `training_data.SOURCES`.
        n: Texts read that show one of the six emotions.
        six_way: Share of them in which the likeliest of the six is the right one.
        recall: The same by emotion; None where the source has no such text.
        accuracy: Share right when every verdict is allowed, neutral and garbled too, over all texts
            of the source, its neutral ones included.
    """

    source: str
    n: int
    six_way: float
    recall: Mapping[str, float | None]
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {**asdict(self), "recall": dict(self.recall)}


def read_source(
    source: str, texts: Sequence[Example], judge: Callable[[Sequence[str]], Verdicts]
) -> HeldOutSource:
    """Scores of a judge on the texts of a source.

    Raises:
        DataError: If none of them shows one of the six emotions.
    """
    verdicts = judge([example.text for example in texts])
    six = np.stack([verdicts.probability(emotion) for emotion in EMOTIONS], axis=1)
    best = [EMOTIONS[int(column)] for column in six.argmax(axis=1)]
    hits: dict[str, list[bool]] = {emotion: [] for emotion in EMOTIONS}
    for example, said in zip(texts, best, strict=True):
        if example.label in hits:
            hits[example.label].append(said == example.label)
    every = [hit for values in hits.values() for hit in values]
    if not every:
        raise DataError(f"The source {source} has no text that shows an emotion.")
    right = [e.label == said for e, said in zip(texts, verdicts.chosen, strict=True)]
    return HeldOutSource(
        source=source,
        n=len(every),
        six_way=float(np.mean(every)),
        recall={e: float(np.mean(values)) if values else None for e, values in hits.items()},
        accuracy=float(np.mean(right)),
    )


def leave_one_source_out(
    encoder_folder: Path,
    data: TrainingSet,
    settings: FitSettings | None = None,
    *,
    sources: Sequence[str] | None = None,
    on_source: Callable[[HeldOutSource], object] = lambda _found: None,
) -> list[HeldOutSource]:
    """Fit a judge without each source, and let it read that source.

    Args:
        encoder_folder: The plain encoder.
        data: All that the shipped judge learns from.
        settings: Of the fits, all alike; default: :data:`BRIEF`.
        sources: Which to hold out; default: all that the data have.
        on_source: Told each result as soon as it is there.

    Raises:
        UnknownNameError: If there is no such source.
        DataError: If the data have no text of it.
    """
    from affectlens.evaluation.judges.encoder import EncoderJudge, load_encoder
    from affectlens.evaluation.judges.fitting import fit_judge

    settings = settings or BRIEF
    found: list[HeldOutSource] = []
    for source in sources or [name for name in SOURCES if data.of(name)]:
        if source not in SOURCES:
            raise unknown("source of the judge", source, SOURCES)
        texts = _some(data.of(source), settings.seed)
        if not texts:
            raise DataError(f"The judge's data have no text of the source {source}.")
        adapter = fit_judge(encoder_folder, data.without(source), settings)
        judge = EncoderJudge(*load_encoder(encoder_folder), adapter)
        found.append(read_source(source, texts, judge))
        on_source(found[-1])
    return found


def _some(texts: Sequence[Example], seed: int) -> list[Example]:
    """At most :data:`PER_LABEL` of each label, in random order."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    kept: dict[str, list[Example]] = {}
    for example in order:
        kept.setdefault(example.label, []).append(example)
    return [example for label in sorted(kept) for example in kept[label][:PER_LABEL]]


def kept() -> list[HeldOutSource]:
    """What was measured when the shipped judge was fitted.

    Raises:
        DataError: If that was not measured.
    """
    from affectlens.evaluation.judges.encoder import shipped_adapter

    rows = shipped_adapter().facts.get("leave_one_out", ())
    if not rows:
        raise DataError(
            "The shipped judge has no such measurement; make one with --goemotions and --repe."
        )
    return [HeldOutSource(**row) for row in rows]


def checked(
    comments: Path | None, scenarios: Path | None, sources: Sequence[str] = ()
) -> list[HeldOutSource]:
    """Measure it now, on what the shipped judge learns from.

    Args:
        comments: Folder of GoEmotions.
        scenarios: Folder of RepE's scenarios.
        sources: Which to hold out; none: all.

    Raises:
        DataError: If a folder is not given, or not what it should be.
        UnknownNameError: If there is no such source.
    """
    from affectlens.evaluation.judges.encoder import ENCODER
    from affectlens.evaluation.judges.fitting import shipped_training_set
    from affectlens.models.registry import pull

    for source in sources:
        if source not in SOURCES:
            raise unknown("source of the judge", source, SOURCES)
    if comments is None or scenarios is None:
        raise DataError("Fitting the judge again needs both folders: --goemotions and --repe.")
    data = shipped_training_set(comments, scenarios)
    return leave_one_source_out(pull(ENCODER), data, BRIEF, sources=sources or None)
