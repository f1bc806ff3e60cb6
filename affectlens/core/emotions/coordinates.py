"""Valence, arousal and dominance of labels, as far as they were published.

Every value is the mean rating of one English term; the term stands beside it, for the reader to
judge whether it means the label. A label without a published term has no coordinates: none are made
up, and none are borrowed from word lists whose licence forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RUSSELL = "Russell and Mehrabian, 1977, Journal of Research in Personality 11, 273-294"
"""Means of 151 terms, on scales from -1 to 1."""
TABULATED = "Mehrabian's scale as tabulated in arXiv 2404.07229"
ORIGIN = "the origin of the scale"

DIMENSIONS: tuple[str, ...] = ("valence", "arousal", "dominance")


@dataclass(frozen=True)
class Coordinates:
    """Where a label lies.

    Attributes:
        valence, arousal, dominance: In [-1, 1].
        term: The word that was rated.
        source: Where the mean was published.
    """

    valence: float
    arousal: float
    dominance: float
    term: str
    source: str

    @property
    def vad(self) -> tuple[float, float, float]:
        """The three numbers."""
        return self.valence, self.arousal, self.dominance


_RATED: Mapping[str, Coordinates] = {
    "anger": Coordinates(-0.51, 0.59, 0.25, "angry", TABULATED),
    "disgust": Coordinates(-0.60, 0.35, 0.11, "disgusted", TABULATED),
    "fear": Coordinates(-0.62, 0.82, -0.43, "fear", TABULATED),
    "happiness": Coordinates(0.81, 0.51, 0.46, "happy", TABULATED),
    "joy": Coordinates(0.81, 0.51, 0.46, "joy", TABULATED),
    "sadness": Coordinates(-0.63, -0.27, -0.33, "sad", TABULATED),
    "surprise": Coordinates(0.40, 0.67, -0.13, "surprised", TABULATED),
    "neutral": Coordinates(0.0, 0.0, 0.0, "neutral", ORIGIN),
    "gratitude": Coordinates(0.61, 0.10, -0.13, "thankful", RUSSELL),
    "hope": Coordinates(0.51, 0.23, 0.14, "hopeful", RUSSELL),
    "humiliation": Coordinates(-0.63, 0.43, -0.38, "humiliated", RUSSELL),
    "interest": Coordinates(0.64, 0.51, 0.17, "interested", RUSSELL),
    "love": Coordinates(0.82, 0.65, -0.05, "in love", RUSSELL),
    "optimism": Coordinates(0.51, 0.23, 0.14, "hopeful", RUSSELL),
    "regret": Coordinates(-0.52, 0.02, -0.21, "regretful", RUSSELL),
    "remorse": Coordinates(-0.52, 0.02, -0.21, "regretful", RUSSELL),
}

VAD: Mapping[str, tuple[float, float, float]] = {
    label: found.vad for label, found in _RATED.items()
}
"""Valence, arousal, dominance in [-1, 1] by label; `coordinates` says where each comes from."""


def coordinates(label: str) -> Coordinates | None:
    """Where a label lies, and who says so; None if nobody published it."""
    return _RATED.get(label)
