"""The sections of the page, one module each, and their table in the order of the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from affectlens.core.registry import Registry
from affectlens.reports.data import ReportData
from affectlens.reports.sections.arms import arms
from affectlens.reports.sections.circuit import circuit
from affectlens.reports.sections.evidence import evidence
from affectlens.reports.sections.examples import examples
from affectlens.reports.sections.geometry import geometry
from affectlens.reports.sections.judges import judges
from affectlens.reports.sections.probing import probing
from affectlens.reports.sections.reading import reading
from affectlens.reports.sections.studies import studies
from affectlens.reports.sections.tuning import tuning


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes:
        name: Its anchor.
        title: Above it.
        help: Below the title: what it tells.
        build: Its HTML, or "" when its data is not there; whatever comes from a user or a model
            must have passed through `affectlens.reports.markup.text`.
    """

    name: str
    title: str
    help: str
    build: Callable[[ReportData], str]


SECTIONS = Registry(
    "report section",
    Section("reading", "Reading", "Where in the model an emotion can be read", reading),
    Section("probing", "Probes", "What can be read where, beside its controls", probing),
    Section("studies", "Studies", "What becomes of an emotion once it is read", studies),
    Section("geometry", "Directions", "How the emotions lie to each other", geometry),
    Section("circuit", "Circuit", "Which neurons and heads write an emotion", circuit),
    Section("evidence", "Evidence", "Whether the model uses the circuit", evidence),
    Section("tuning", "Strength", "How hard to push", tuning),
    Section("arms", "Steering", "Whether steered text is heard as meant", arms),
    Section("judges", "Judges", "How far the ruler can be trusted", judges),
    Section("examples", "Examples", "One prompt, every emotion", examples),
)
