"""Label sets and their coordinates."""

from __future__ import annotations

from collections.abc import Mapping

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
    "none": NEUTRAL,
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


def emotion_name(name: str, valid: tuple[str, ...] = TONES) -> str:
    """Normalise a label typed by a user.

    Raises:
        UnknownNameError: If it is neither in ``valid`` nor an alias of a name in it.
    """
    key = name.strip().lower()
    key = ALIASES.get(key, key)
    if key not in valid:
        raise unknown("emotion", name, valid)
    return key
