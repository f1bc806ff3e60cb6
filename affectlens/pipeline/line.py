"""All stages of a run in order, and what each of them reads."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from affectlens.core.registry import Registry
from affectlens.pipeline.engine import Files
from affectlens.pipeline.stage import Row, StageRun

MODEL = ("model", "text")
JUDGES = ("judge", "lexicon", "encoder")


def in_module(name: str) -> Callable[[StageRun], Files]:
    """The function ``name`` of `affectlens.pipeline.stages.<name>`, loaded when its turn comes.

    The command line shows this table, and should not wait for torch to do so.
    """

    def work(run: StageRun) -> Files:
        return getattr(import_module(f"affectlens.pipeline.stages.{name}"), name)(run)

    return work


STAGES = Registry(
    "stage",
    Row(
        "fit_judge",
        "Settle the judges: shipped, named, or fitted on your own labels",
        "whose verdicts count",
        needs=(),
        reads=("corpora", *JUDGES),
        work=in_module("fit_judge"),
    ),
    Row(
        "express",
        "Let the model express each emotion",
        "the model expresses each emotion",
        needs=(),
        reads=(*MODEL, "corpora", "events", "openers"),
        work=in_module("express"),
    ),
    Row(
        "activations",
        "Cache activations of the corpora",
        "activations of all blocks",
        needs=("express",),
        reads=(*MODEL, "corpora"),
        work=in_module("activations"),
    ),
    Row(
        "probe",
        "Fit a probe per layer",
        "a probe per layer",
        needs=("activations",),
        reads=(),
        work=in_module("probe"),
    ),
    Row(
        "directions",
        "Find the emotion directions",
        "emotion directions",
        needs=("express", "activations"),
        reads=(*MODEL, "corpora"),
        work=in_module("directions"),
    ),
    Row(
        "circuit",
        "Find the neurons and heads that write them",
        "the neurons and heads behind them",
        needs=("express", "directions"),
        reads=(*MODEL, "corpora", "events"),
        work=in_module("circuit"),
    ),
    Row(
        "evidence",
        "Test the circuit against random units, in small",
        "evidence for the circuit, in small",
        needs=("circuit",),
        reads=(*MODEL, "corpora"),
        work=in_module("evidence"),
    ),
    Row(
        "controls",
        "Refine random units alike, to compare the circuit with",
        "random units, refined alike",
        needs=("express", "circuit"),
        reads=(*MODEL, "corpora"),
        work=in_module("controls"),
    ),
    Row(
        "pack",
        "Fold directions and circuit into a steering pack",
        "steering packs",
        needs=("probe", "directions", "circuit", "evidence", "controls"),
        reads=(*MODEL, "events"),
        work=in_module("pack"),
    ),
    Row(
        "tune",
        "Choose strengths on the tuning scenarios",
        "strengths, on tuning scenarios",
        needs=("fit_judge", "pack"),
        reads=(*MODEL, "events", *JUDGES),
        work=in_module("tune"),
    ),
    Row(
        "evaluate",
        "Compare the arms on the test scenarios",
        "all arms on test scenarios",
        needs=("tune",),
        reads=(*MODEL, "events", "prompts"),
        work=in_module("evaluate"),
    ),
    Row(
        "judge",
        "Measure the judges on texts they have not seen",
        "how far the judges can be trusted",
        needs=("fit_judge",),
        reads=("corpora", "judge", "lexicon", "encoder"),
        work=in_module("judge"),
    ),
    Row(
        "report",
        "Write report.html and metrics.json",
        "report.html and metrics.json",
        needs=(
            "fit_judge",
            "express",
            "activations",
            "probe",
            "directions",
            "circuit",
            "evidence",
            "controls",
            "pack",
            "tune",
            "evaluate",
            "judge",
        ),
        reads=JUDGES,
        work=in_module("report"),
    ),
)
"""All stages, inputs before users; the report names the costs of those that it needs."""
