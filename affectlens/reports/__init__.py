"""The report of a run: figures, one self-contained HTML page, and the numbers behind it."""

from affectlens.reports.data import (
    Arm,
    CircuitData,
    Comparison,
    CrossCorpus,
    Directions,
    EmotionMap,
    Evaluation,
    Example,
    Header,
    Judge,
    Probes,
    Reply,
    ReportData,
    Share,
    StrengthPoint,
    Tuning,
)
from affectlens.reports.numbers import load, plain, save
from affectlens.reports.page import render, write

__all__ = [
    "Arm",
    "CircuitData",
    "Comparison",
    "CrossCorpus",
    "Directions",
    "EmotionMap",
    "Evaluation",
    "Example",
    "Header",
    "Judge",
    "Probes",
    "Reply",
    "ReportData",
    "Share",
    "StrengthPoint",
    "Tuning",
    "load",
    "plain",
    "render",
    "save",
    "write",
]
