"""Label sets: their names, where their labels lie, and how one becomes another."""

from affectlens.core.emotions.coordinates import DIMENSIONS, VAD, Coordinates, coordinates
from affectlens.core.emotions.label_sets import LABEL_SETS, LabelSet, label_set
from affectlens.core.emotions.mappings import LABEL_MAPPINGS, LabelMapping, label_mapping
from affectlens.core.emotions.names import (
    ALIASES,
    EMOTIONS,
    NEUTRAL,
    TONES,
    VALENCES,
    emotion_name,
    inferred_labels,
    label_key,
    own_emotions,
)
from affectlens.core.emotions.ontology import export_labels, import_labels

__all__ = [
    "ALIASES",
    "DIMENSIONS",
    "EMOTIONS",
    "LABEL_MAPPINGS",
    "LABEL_SETS",
    "NEUTRAL",
    "TONES",
    "VAD",
    "VALENCES",
    "Coordinates",
    "LabelMapping",
    "LabelSet",
    "coordinates",
    "emotion_name",
    "export_labels",
    "import_labels",
    "inferred_labels",
    "label_key",
    "label_mapping",
    "label_set",
    "own_emotions",
]
