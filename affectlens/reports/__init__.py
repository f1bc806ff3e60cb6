"""The report of a run: one self-contained HTML page, and the numbers behind it."""

from affectlens.reports.data import Example, Header, Heard, ReportData, Tuning
from affectlens.reports.numbers import load, plain, save
from affectlens.reports.page import render, write
from affectlens.reports.sections import SECTIONS, Section

__all__ = [
    "SECTIONS",
    "Example",
    "Header",
    "Heard",
    "ReportData",
    "Section",
    "Tuning",
    "load",
    "plain",
    "render",
    "save",
    "write",
]
