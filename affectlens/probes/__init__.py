"""Directions and probes: where and how linearly emotion can be read."""

from affectlens.probes.directions import Directions, bootstrap_cosine, directions
from affectlens.probes.estimators import ESTIMATORS, group_centred
from affectlens.probes.geometry import EmotionMap, emotion_map, vad_correlation
from affectlens.probes.logistic import LogisticFit, fit_logistic
from affectlens.probes.streaming import STREAMED, GroupSums, group_sums, stream_directions
from affectlens.probes.sweep import Sweep, sweep

__all__ = [
    "ESTIMATORS",
    "STREAMED",
    "Directions",
    "EmotionMap",
    "GroupSums",
    "LogisticFit",
    "Sweep",
    "bootstrap_cosine",
    "directions",
    "emotion_map",
    "fit_logistic",
    "group_centred",
    "group_sums",
    "stream_directions",
    "sweep",
    "vad_correlation",
]
