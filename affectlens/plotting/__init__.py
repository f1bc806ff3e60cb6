"""Plotly figures, one function per figure: artefacts in (or their summaries), a `Figure` out."""

from affectlens.plotting.arms import arms_bars, per_emotion_heatmap
from affectlens.plotting.calibration import reliability
from affectlens.plotting.circuit import (
    allocation_bars,
    contribution_map,
    influence_profile,
    overlap_heatmap,
)
from affectlens.plotting.effects import edge_sankey, effect_map
from affectlens.plotting.efficiency import efficiency_curves
from affectlens.plotting.evidence import choices, f_curves, k_curves
from affectlens.plotting.evidence_summary import CurveSummary, EvidenceSummary
from affectlens.plotting.figures import FIGURES, Figure, plot
from affectlens.plotting.geometry import cosine_heatmap, emotion_map, split_half
from affectlens.plotting.judges import confusion
from affectlens.plotting.probes import probe_accuracy
from affectlens.plotting.relations import (
    component_bars,
    emotion_tree,
    similarity_heatmap,
    vad_curves,
)
from affectlens.plotting.strengths import strength_curves
from affectlens.plotting.summaries import CircuitSummary, DirectionsSummary, SweepSummary

__all__ = [
    "FIGURES",
    "CircuitSummary",
    "CurveSummary",
    "DirectionsSummary",
    "EvidenceSummary",
    "Figure",
    "SweepSummary",
    "allocation_bars",
    "arms_bars",
    "choices",
    "component_bars",
    "confusion",
    "contribution_map",
    "cosine_heatmap",
    "edge_sankey",
    "effect_map",
    "efficiency_curves",
    "emotion_map",
    "emotion_tree",
    "f_curves",
    "influence_profile",
    "k_curves",
    "overlap_heatmap",
    "per_emotion_heatmap",
    "plot",
    "probe_accuracy",
    "reliability",
    "similarity_heatmap",
    "split_half",
    "strength_curves",
    "vad_curves",
]
