"""Published studies, run again on any model, each figure beside the paper's."""

from affectlens.reproductions.registry import REPRODUCTIONS
from affectlens.reproductions.reproduce import reproduce
from affectlens.reproductions.reproduction import Correction, Reproduction, Step
from affectlens.reproductions.request import StudyRequest

__all__ = [
    "REPRODUCTIONS",
    "Correction",
    "Reproduction",
    "Step",
    "StudyRequest",
    "reproduce",
]
