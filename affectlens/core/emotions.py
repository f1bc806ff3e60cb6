"""Label sets and their coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from affectlens.core.errors import unknown

EMOTIONS: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""Ekman's six, in the order of every axis called ``emotion``."""

NEUTRAL = "neutral"
TONES: tuple[str, ...] = (*EMOTIONS, NEUTRAL)
VALENCES: tuple[str, ...] = ("positive", "neutral", "negative")

ALIASES: Mapping[str, str] = {
    "joy": "happiness",
    "happy": "happiness",
    "angry": "anger",
    "sad": "sadness",
    "afraid": "fear",
    "scared": "fear",
    "disgusted": "disgust",
    "surprised": "surprise",
}

VAD: Mapping[str, tuple[float, float, float]] = {
    "anger": (-0.51, 0.59, 0.25),
    "disgust": (-0.60, 0.35, 0.11),
    "fear": (-0.62, 0.82, -0.43),
    "happiness": (0.81, 0.51, 0.46),
    "sadness": (-0.63, -0.27, -0.33),
    "surprise": (0.40, 0.67, -0.13),
    "neutral": (0.0, 0.0, 0.0),
}
"""Valence, arousal, dominance in [-1, 1] (Mehrabian's scale as tabulated in arXiv 2404.07229)."""


def label_key(name: str) -> str:
    """Equal for names that differ in case or spaces only."""
    return " ".join(name.replace("_", " ").casefold().split())


def emotion_name(name: str, valid: tuple[str, ...] = TONES) -> str:
    """Find a label as a user types it: as it is, whatever its case and spaces, or by an alias.

    The names in ``valid`` come first: with a label ``joy`` of one's own, ``Joy`` is that one.

    Raises:
        UnknownNameError: If it is neither in ``valid`` nor an alias of a name in it.
    """
    if name in valid:
        return name
    key = label_key(name)
    for candidate in (key, ALIASES.get(key)):
        found = [label for label in valid if label_key(label) == candidate]
        if len(found) == 1:
            return found[0]
    raise unknown("emotion", name, valid)


def own_emotions(labels: Iterable[str]) -> tuple[str, ...]:
    """The emotions of a label set: all but the neutral tone."""
    return tuple(label for label in labels if label != NEUTRAL)


def inferred_labels(found: Iterable[str]) -> tuple[str, ...]:
    """The label set of labels that nobody named one for: ours if it has them all, else just they.

    Ours come first, in their order, then others by name.
    """
    names = set(found)
    if names <= set(TONES):
        return TONES
    return (*(tone for tone in TONES if tone in names), *sorted(names.difference(TONES)))
