"""Emotion directions: how they are estimated, how reliable they are, and how they lie."""

from affectlens.geometry.components import EmotionComponents, emotion_components
from affectlens.geometry.directions import Directions, bootstrap_cosine, directions
from affectlens.geometry.emotion_map import EmotionMap, emotion_map, vad_correlation
from affectlens.geometry.estimators import ESTIMATORS, group_centred
from affectlens.geometry.hierarchy import EmotionTree, emotion_tree
from affectlens.geometry.linear_fit import LinearFit
from affectlens.geometry.logistic import fit_logistic
from affectlens.geometry.similarity import Similarity, similarity
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
    "EmotionComponents",
    "EmotionMap",
    "EmotionTree",
    "GroupSums",
    "LinearFit",
    "Similarity",
    "StreamSettings",
    "bootstrap_cosine",
    "directions",
    "emotion_components",
    "emotion_map",
    "emotion_tree",
    "fit_logistic",
    "group_centred",
    "group_sums",
    "similarity",
    "stream_directions",
    "vad_correlation",
]
