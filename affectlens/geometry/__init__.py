"""Emotion directions: how they are estimated, how reliable they are, and how they lie."""

from affectlens.geometry.directions import Directions, bootstrap_cosine, directions
from affectlens.geometry.emotion_map import EmotionMap, emotion_map, vad_correlation
from affectlens.geometry.estimators import ESTIMATORS, group_centred
from affectlens.geometry.linear_fit import LinearFit
from affectlens.geometry.logistic import fit_logistic
from affectlens.geometry.streaming import (
    STREAMED,
    GroupSums,
    StreamSettings,
    group_sums,
    stream_directions,
)

__all__ = [
    "ESTIMATORS",
    "STREAMED",
    "Directions",
    "EmotionMap",
    "GroupSums",
    "LinearFit",
    "StreamSettings",
    "bootstrap_cosine",
    "directions",
    "emotion_map",
    "fit_logistic",
    "group_centred",
    "group_sums",
    "stream_directions",
    "vad_correlation",
]
