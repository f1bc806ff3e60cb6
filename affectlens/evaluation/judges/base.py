"""What a judge is: reads texts, and nothing but the texts, and names the tone of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from affectlens.core import TONES, DataError

GARBLED = "garbled"
"""Text that is no language any more; it counts as no emotion, whatever words it holds."""

UNJUDGED = "unjudged"
"""No verdict: the judge did not answer. Such a text is left out, neither found nor missed."""

JUDGED: tuple[str, ...] = (*TONES, GARBLED)
"""Labels of the built-in judges: six emotions, neutral, garbled."""


@dataclass(frozen=True)
class Verdicts:
    """What a judge said about ``n`` texts.

    Attributes:
        labels: Names of the ``k`` columns of ``probabilities``.
        chosen: The label of each text, or :data:`UNJUDGED`.
        probabilities: One row per text; rows sum to 1, and are NaN where there is no verdict.
    """

    labels: tuple[str, ...]
    chosen: tuple[str, ...]
    probabilities: Float[np.ndarray, "n k"]

    @classmethod
    def likeliest(cls, labels: Sequence[str], probabilities: Float[np.ndarray, "n k"]) -> Verdicts:
        """Verdicts that choose of each row the label with the highest probability."""
        chosen = tuple(labels[int(best)] for best in probabilities.argmax(axis=1))
        return cls(tuple(labels), chosen, probabilities)

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def judged(self) -> Bool[np.ndarray, " n"]:
        """Which texts there is a verdict on."""
        return np.array([label != UNJUDGED for label in self.chosen], dtype=bool)

    def probability(self, label: str) -> Float[np.ndarray, " n"]:
        """The column of one label (zeros if the judge does not know it)."""
        if label not in self.labels:
            return np.zeros(len(self))
        return self.probabilities[:, self.labels.index(label)]


@runtime_checkable
class Judge(Protocol):
    """Anything that turns texts into verdicts.

    A judge is blind: it is never told which emotion was wanted, and a verdict depends on its own
    text alone, not on the others in the batch.
    """

    @property
    def name(self) -> str:
        """Short name for reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of all that a verdict depends on: equal ones judge alike."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label it may choose."""
        ...

    def __call__(self, texts: Sequence[str]) -> Verdicts:
        """Judge each text alone."""
        ...


def require_labels(judge: Judge, labels: Sequence[str]) -> None:
    """Refuse a judge that can never say what it is asked to hear.

    Raises:
        DataError: Naming the first such label.
    """
    for label in labels:
        if label not in judge.labels:
            raise DataError(f"The judge {judge.name} never says {label}; name a judge that does.")
