"""Plotly figures, one function per figure; each takes plain numbers and returns a `Figure`."""

from affectlens.plotting.circuit import (
    allocation_bars,
    contribution_map,
    influence_profile,
    overlap_heatmap,
)
from affectlens.plotting.geometry import cosine_heatmap, emotion_map, split_half
from affectlens.plotting.probes import probe_accuracy
from affectlens.plotting.steering import (
    arms_bars,
    confusion,
    per_emotion_heatmap,
    strength_curves,
)

__all__ = [
    "allocation_bars",
    "arms_bars",
    "confusion",
    "contribution_map",
    "cosine_heatmap",
    "emotion_map",
    "influence_profile",
    "overlap_heatmap",
    "per_emotion_heatmap",
    "probe_accuracy",
    "split_half",
    "strength_curves",
]
