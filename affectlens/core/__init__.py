"""Names, errors and files that every other layer shares."""

from affectlens.core.artefact import Provenance, fingerprint
from affectlens.core.emotions import EMOTIONS, NEUTRAL, TONES, VALENCES, emotion_name
from affectlens.core.errors import (
    AffectLensError,
    ArtefactError,
    DataError,
    MismatchError,
    ModelError,
    UnknownNameError,
)
from affectlens.core.groups import GroupKey, group_key, group_name
from affectlens.core.places import KINDS, Site, WritePoint, expand_sites

__all__ = [
    "EMOTIONS",
    "KINDS",
    "NEUTRAL",
    "TONES",
    "VALENCES",
    "AffectLensError",
    "ArtefactError",
    "DataError",
    "GroupKey",
    "MismatchError",
    "ModelError",
    "Provenance",
    "Site",
    "UnknownNameError",
    "WritePoint",
    "emotion_name",
    "expand_sites",
    "fingerprint",
    "group_key",
    "group_name",
]
