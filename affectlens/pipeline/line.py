"""All stages of a run in order, and what each of them reads."""

from __future__ import annotations

from affectlens.core.errors import unknown
from affectlens.pipeline.stage import Row
from affectlens.pipeline.stages.activations import activations
from affectlens.pipeline.stages.circuit import circuit
from affectlens.pipeline.stages.controls import controls
from affectlens.pipeline.stages.directions import directions
from affectlens.pipeline.stages.evaluate import evaluate
from affectlens.pipeline.stages.express import express
from affectlens.pipeline.stages.judge import judge
from affectlens.pipeline.stages.pack import pack
from affectlens.pipeline.stages.probe import probe
from affectlens.pipeline.stages.report import report
from affectlens.pipeline.stages.tune import tune

MODEL = ("model", "text")
JUDGES = ("judge", "lexicon", "encoder")
STAGES = (
    "express",
    "activations",
    "probe",
    "directions",
    "circuit",
    "controls",
    "pack",
    "tune",
    "evaluate",
    "judge",
)
"""Whose costs the report names, too."""

LINE = (
    Row(
        "express",
        "the model expresses each emotion",
        needs=(),
        reads=(*MODEL, "corpora", "events", "openers"),
        work=express,
    ),
    Row(
        "activations",
        "activations of all blocks",
        needs=("express",),
        reads=(*MODEL, "corpora"),
        work=activations,
    ),
    Row("probe", "a probe per layer", needs=("activations",), reads=(), work=probe),
    Row(
        "directions",
        "emotion directions",
        needs=("express", "activations"),
        reads=(*MODEL, "corpora"),
        work=directions,
    ),
    Row(
        "circuit",
        "the neurons and heads behind them",
        needs=("express", "directions"),
        reads=(*MODEL, "corpora", "events"),
        work=circuit,
    ),
    Row(
        "controls",
        "random units, refined alike",
        needs=("express", "circuit"),
        reads=(*MODEL, "corpora"),
        work=controls,
    ),
    Row(
        "pack",
        "steering packs",
        needs=("probe", "directions", "circuit", "controls"),
        reads=(*MODEL, "events"),
        work=pack,
    ),
    Row(
        "tune",
        "strengths, on tuning scenarios",
        needs=("pack",),
        reads=(*MODEL, "events", *JUDGES),
        work=tune,
    ),
    Row(
        "evaluate",
        "all arms on test scenarios",
        needs=("tune",),
        reads=(*MODEL, "events", "prompts"),
        work=evaluate,
    ),
    Row(
        "judge",
        "how far the judges can be trusted",
        needs=(),
        reads=("corpora", "judge", "lexicon", "encoder"),
        work=judge,
    ),
    Row(
        "report",
        "report.html and metrics.json",
        needs=STAGES,
        reads=JUDGES,
        work=report,
    ),
)
"""All stages, inputs before users."""


def row(name: str) -> Row:
    """A stage by its name.

    Raises:
        UnknownNameError: If there is none.
    """
    for one in LINE:
        if one.name == name:
            return one
    raise unknown("stage", name, [one.name for one in LINE])
