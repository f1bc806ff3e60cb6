"""The table of figures, and the one function that draws whatever may be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from affectlens.circuits import Circuit
from affectlens.circuits.attribution.edge_scores import EdgeScores
from affectlens.circuits.attribution.scores import UnitScores
from affectlens.circuits.evidence import (
    AblationCurve,
    Confusion,
    EnhancementCurve,
    FaithfulnessCurve,
)
from affectlens.circuits.evidence.efficiency import EfficiencyCurve
from affectlens.circuits.overlap import Overlap
from affectlens.core.errors import DataError
from affectlens.core.extras import needed
from affectlens.core.registry import Registry
from affectlens.evaluation import ArmMetrics, StrengthPoint
from affectlens.geometry import Directions, EmotionComponents, EmotionTree, Similarity
from affectlens.geometry.emotion_map import EmotionMap
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
from affectlens.plotting.evidence_summary import ChoiceSummary, CurveSummary, LeftSummary
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
from affectlens.plotting.studies import StudySummary, study_figure
from affectlens.plotting.summaries import CircuitSummary, DirectionsSummary, SweepSummary
from affectlens.plotting.sweeps import (
    SweepsSummary,
    depth_curves,
    learning_curves,
    scale_points,
    transfer_heatmap,
)
from affectlens.probes import Probe, Sweep, VadMap
from affectlens.probes.calibration import Quality

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: By which `plot` takes it.
        help: What it shows.
        takes: Whether it can draw an artefact.
        draw: Of the artefact, and options of its own, to a plotly figure.
    """

    name: str
    help: str
    takes: Callable[[object], bool]
    draw: Callable[..., go.Figure]


def a(*kinds: type) -> Callable[[object], bool]:
    """Takes an artefact of one of these kinds."""
    return lambda found: isinstance(found, kinds)


def some(kind: type) -> Callable[[object], bool]:
    """Takes several of a kind: in a sequence, or by name."""

    def takes(found: object) -> bool:
        if isinstance(found, Mapping):
            found = list(cast("Mapping[Any, Any]", found).values())
        members = cast("Sequence[Any]", found) if isinstance(found, Sequence) else ()
        return bool(members) and all(isinstance(one, kind) for one in members)

    return takes


def a_judge_report(found: object) -> bool:
    """Takes what `affectlens.evaluation.judges.judge_report` returns."""
    return isinstance(found, Mapping) and {"judge", "corpora"} <= found.keys()


FIGURES = Registry(
    "figure",
    Figure(
        "probe_accuracy",
        "how well a probe reads the emotion, layer by layer",
        a(Sweep, SweepSummary),
        probe_accuracy,
    ),
    Figure(
        "depth_curves",
        "what probes read by depth, several models and corpora in one",
        a(SweepsSummary),
        depth_curves,
    ),
    Figure(
        "transfer_heatmap",
        "probes of each corpus on the held-out rows of every other",
        a(SweepsSummary),
        transfer_heatmap,
    ),
    Figure(
        "learning_curves",
        "how well a probe reads by the number of groups it was fitted on",
        a(SweepsSummary),
        learning_curves,
    ),
    Figure(
        "scale_points",
        "what probes read at best by the size of the model",
        a(SweepsSummary),
        scale_points,
    ),
    Figure(
        "study",
        "readings by offset of a reply, by system prompt, by turn of a dialogue",
        a(StudySummary),
        study_figure,
    ),
    Figure(
        "cosine_heatmap",
        "cosines between the directions at one site",
        a(Directions, DirectionsSummary),
        cosine_heatmap,
    ),
    Figure(
        "emotion_map",
        "the emotions on the two axes on which they differ most",
        a(Directions, EmotionMap),
        emotion_map,
    ),
    Figure(
        "component_bars",
        "variance along the components of emotion means, beside chance",
        a(EmotionComponents),
        component_bars,
    ),
    Figure(
        "emotion_tree", "which emotions are nearest to each other", a(EmotionTree), emotion_tree
    ),
    Figure(
        "similarity_heatmap",
        "how alike emotions lie, in every two layers or models",
        a(Similarity),
        similarity_heatmap,
    ),
    Figure(
        "vad_curves",
        "how well valence, arousal and dominance are read, layer by layer",
        a(VadMap),
        vad_curves,
    ),
    Figure(
        "split_half",
        "agreement of directions found on two halves of the groups",
        a(Directions, DirectionsSummary),
        split_half,
    ),
    Figure(
        "allocation_bars",
        "units of a circuit in each layer",
        a(Circuit, CircuitSummary),
        allocation_bars,
    ),
    Figure(
        "influence_profile",
        "how far a push at each sublayer carries",
        a(Circuit, CircuitSummary),
        influence_profile,
    ),
    Figure(
        "contribution_map",
        "what each head or neuron writes along an emotion",
        a(Circuit, CircuitSummary),
        contribution_map,
    ),
    Figure(
        "overlap_heatmap",
        "units that circuits share, relative to chance",
        a(Overlap, Circuit, CircuitSummary),
        overlap_heatmap,
    ),
    Figure(
        "k_curves",
        "change of margins by units taken out or set, beside random ones",
        a(AblationCurve, EnhancementCurve, CurveSummary),
        k_curves,
    ),
    Figure(
        "f_curves",
        "what growing shares of the units keep alone, with CPR and CMD",
        a(FaithfulnessCurve, LeftSummary),
        f_curves,
    ),
    Figure(
        "choices",
        "in which tone texts go on once an emotion's units are set",
        a(Confusion, ChoiceSummary),
        choices,
    ),
    Figure(
        "strength_curves",
        "accuracy and fluency by steering strength",
        some(StrengthPoint),
        strength_curves,
    ),
    Figure(
        "arms_bars",
        "emotion heard and perplexity ratio of every arm",
        some(ArmMetrics),
        arms_bars,
    ),
    Figure(
        "per_emotion_heatmap",
        "emotion heard by arm and target",
        some(ArmMetrics),
        per_emotion_heatmap,
    ),
    Figure(
        "efficiency_curves",
        "emotion heard and perplexity ratio by number of units",
        a(EfficiencyCurve),
        efficiency_curves,
    ),
    Figure(
        "effect_map",
        "what each head is worth to a task, later layers included",
        a(UnitScores),
        effect_map,
    ),
    Figure(
        "edge_sankey",
        "the strongest edges between heads, MLPs and the unembedding",
        a(EdgeScores),
        edge_sankey,
    ),
    Figure(
        "reliability",
        "what a probe's probabilities claim against what came true",
        a(Probe, Quality),
        reliability,
    ),
    Figure("confusion", "how a judge reads texts of known tone", a_judge_report, confusion),
)
"""Every figure; the first that takes an artefact is what `plot` draws of it."""


def plot(artefact: object, figure: str | None = None, **options: Any) -> go.Figure:
    """Draw an artefact as the report does.

    A function and not a method: artefacts are loaded by servers and on clusters, where nothing is
    drawn, so they know of no figure, and the figures know of them.

    Args:
        artefact: `Sweep`, `Directions`, `EmotionMap`, components, trees and similarity of
            emotions, `VadMap`, `Circuit`, `Overlap`, curves and
            choices of a circuit's evidence, the report of a judge,
            strengths that were tried, or measures of arms by name.
        figure: A name in :data:`FIGURES`; default: the first there that takes the artefact.
        **options: Of that figure: ``site`` of directions, ``emotion`` and ``kind`` of a
            contribution map, ``chosen`` of strengths.

    Returns:
        A plotly figure, which notebooks show.

    Raises:
        UnknownNameError: If there is no such figure.
        DataError: If the artefact has no figure, or not this one.
        ModelError: If plotly is not installed.
    """
    fitting = [row for row in FIGURES.values() if row.takes(artefact)]
    if not fitting:
        raise DataError(f"There is no figure of {type(artefact).__name__}.")
    row = fitting[0] if figure is None else FIGURES[figure]
    if row not in fitting:
        names = ", ".join(one.name for one in fitting)
        raise DataError(f"{row.name} does not draw {type(artefact).__name__}; choose {names}.")
    needed("plotly", "A figure")
    return row.draw(artefact, **options)
