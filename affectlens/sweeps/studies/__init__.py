"""The study of "Decoding Emotion in the Deep", one module a question, each beside its controls."""

from affectlens.sweeps.studies.answers import Answering, answered
from affectlens.sweeps.studies.base import StudyResult
from affectlens.sweeps.studies.dialogue import DialogueRequest, dialogue, read_dialogues
from affectlens.sweeps.studies.malleability import MalleabilityRequest, malleability
from affectlens.sweeps.studies.persistence import PersistenceRequest, persistence
from affectlens.sweeps.studies.writing import studied, write_study

__all__ = [
    "Answering",
    "DialogueRequest",
    "MalleabilityRequest",
    "PersistenceRequest",
    "StudyResult",
    "answered",
    "dialogue",
    "malleability",
    "persistence",
    "read_dialogues",
    "studied",
    "write_study",
]
