"""Names of emotions: ours, and how a user may write any."""

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
