"""``affectlens list``: whatever can be added by name, of every kind."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

from affectlens.cli.program import PARTS, example, sentences

TABLES: Mapping[str, str] = {
    "label_sets": "affectlens.core.emotions:LABEL_SETS",
    "label_mappings": "affectlens.core.emotions:LABEL_MAPPINGS",
    "corpora": "affectlens.datasets:CORPORA",
    "estimators": "affectlens.geometry:ESTIMATORS",
    "probes": "affectlens.probes:PROBES",
    "calibrations": "affectlens.probes.calibration:CALIBRATIONS",
    "controls": "affectlens.sweeps:CONTROLS",
    "interventions": "affectlens.circuits.interventions:INTERVENTIONS",
    "tasks": "affectlens.circuits.tasks:TASKS",
    "strategies": "affectlens.circuits.ranking:STRATEGIES",
    "evidence": "affectlens.circuits.evidence.parts:PARTS",
    "operators": "affectlens.steering.operators:OPERATORS",
    "objectives": "affectlens.steering.refine.objectives:OBJECTIVES",
    "methods": "affectlens.steering.methods:METHODS",
    "policies": "affectlens.steering.policies:POLICIES",
    "formats": "affectlens.steering.formats:FORMATS",
    "vector_formats": "affectlens.steering.formats.vectors:VECTOR_FORMATS",
    "dictionaries": "affectlens.steering.formats.dictionaries:DICTIONARIES",
    "pack_sources": "affectlens.steering.packs.sources:PACK_SOURCES",
    "servers": "affectlens.serving.servers:SERVERS",
    "arms": "affectlens.evaluation:ARMS",
    "backends": "affectlens.evaluation:BACKENDS",
    "judges": "affectlens.evaluation.judges:JUDGES",
    "suites": "affectlens.evaluation.suites:SUITES",
    "stages": "affectlens.pipeline.line:STAGES",
    "styles": "affectlens.pipeline.styles:STYLES",
    "sizes": "affectlens.pipeline.sizes:SIZES",
    "reproductions": "affectlens.reproductions:REPRODUCTIONS",
    "engines": "affectlens.activations:ENGINES",
    "quantisers": "affectlens.models.quantisers:QUANTISERS",
    "exports": "affectlens.activations.store.export:FORMATS",
    "figures": "affectlens.plotting:FIGURES",
    "sections": "affectlens.reports:SECTIONS",
}
"""Kind → the module and name of its `affectlens.core.registry.Registry`."""


def add_list_command(app: typer.Typer) -> None:
    """Add ``list``."""
    shown = example("affectlens list", "affectlens list figures")
    app.command("list", rich_help_panel=PARTS, epilog=shown)(list_entries)


def list_entries(
    kind: Annotated[
        str | None, typer.Argument(help=f"{', '.join(TABLES)}; default: all.", metavar="[KIND]")
    ] = None,
) -> None:
    """What goes by name: stages, figures, operators, arms, …"""
    with sentences():
        from affectlens.cli.tables import print_entries
        from affectlens.core.errors import unknown

        if kind is not None and kind not in TABLES:
            raise unknown("kind", kind, TABLES)
        print_entries({name: _table(name) for name in ([kind] if kind else TABLES)})


def _table(kind: str) -> Any:
    module, _, name = TABLES[kind].partition(":")
    return getattr(import_module(module), name)
