"""Wang et al., "Do LLMs 'Feel'? Emotion Circuits Discovery and Control", arXiv 2510.11328."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from affectlens.core.jsonl import parse_jsonl
from affectlens.pipeline.engine import Files
from affectlens.reproductions.comparison import PaperFigure, expanded
from affectlens.reproductions.reproduction import Correction, Reproduction, Step

if TYPE_CHECKING:
    from affectlens.reproductions.request import StudyRequest
    from affectlens.reproductions.study import StudyRun

RAW_HEADS = "raw-head-scores"
VALENCE_KEY = "valence-key"
RAW_LAST = "raw-last-state"
LAST_HEADS = "last-token-heads"
ONE_DECODING = "one-decoding"

_CORRECTIONS = (
    Correction(
        RAW_HEADS,
        "heads are scored on the residual stream, where their directions are",
        "heads are scored behind the norm that the MLP reads through, though their directions lie "
        "before it",
    ),
    Correction(
        VALENCE_KEY,
        "differences of neurons are taken within a scenario and a valence",
        "differences of neurons are taken within a scenario, so that of its valences the last one "
        "read overwrites the others",
    ),
    Correction(
        RAW_LAST,
        "the last block is read in the residual stream like the others",
        "the last block is read after the final norm: its directions, its RMS, and the end at "
        "which influence is measured",
    ),
    Correction(
        LAST_HEADS,
        "heads are changed at the last position of each pass, as neurons are",
        "heads are changed at every position of each pass, neurons at the last one",
    ),
    Correction(
        ONE_DECODING,
        "every arm is decoded greedily without penalties",
        "the arms are decoded differently: no penalties for prompts, repetition penalty 1.05 for "
        "the residual, 1.1 for circuits, the latter two without repeated 3-grams and with at least "
        "10 tokens",
    ),
)


def _step(name: str) -> Callable[[StudyRun], Files]:
    """The function ``work`` of a module, loaded when its turn comes."""

    def work(run: StudyRun) -> Files:
        module = import_module(f"affectlens.reproductions.emotion_circuits.{name}_step")
        return module.work(run)

    return work


def _settings() -> Any:
    from affectlens.reproductions.emotion_circuits.settings import PaperSettings

    return PaperSettings()


def _material(request: StudyRequest) -> str:
    from affectlens.reproductions.emotion_circuits.scenarios import material

    return material(request)


def _figures() -> tuple[PaperFigure, ...]:
    text = (files(__name__) / "figures.jsonl").read_text(encoding="utf-8")
    return expanded(parse_jsonl(text))


_MODEL = ("model", "text")
_STEPS = (
    Step(
        "scenarios",
        "the scenarios",
        needs=(),
        reads=("material",),
        options=("groups", "events", "seed"),
        corrections=(),
        work=_step("scenarios"),
    ),
    Step(
        "elicit",
        "replies to a system prompt that asks for each emotion",
        needs=("scenarios",),
        reads=(*_MODEL, "judge"),
        options=("accept", "endpoint", "endpoint_model", "seed"),
        corrections=(),
        work=_step("elicit"),
    ),
    Step(
        "directions",
        "directions at both sublayers, and where emotions part",
        needs=("scenarios", "elicit"),
        reads=_MODEL,
        options=("accept", "seed"),
        corrections=(RAW_LAST,),
        work=_step("directions"),
    ),
    Step(
        "influence",
        "how far a push at each sublayer carries",
        needs=("scenarios", "directions"),
        reads=_MODEL,
        options=(),
        corrections=(RAW_LAST,),
        work=_step("influence"),
    ),
    Step(
        "circuit",
        "scores of neurons and heads, and the circuit",
        needs=("scenarios", "elicit", "directions", "influence"),
        reads=_MODEL,
        options=("accept", "seed"),
        corrections=(RAW_HEADS, VALENCE_KEY),
        work=_step("circuit"),
    ),
    Step(
        "unsteered",
        "replies without steering",
        needs=("scenarios",),
        reads=_MODEL,
        options=(),
        corrections=(),
        work=_step("unsteered"),
    ),
    Step(
        "steering",
        "replies with the residual stream steered",
        needs=("scenarios", "directions"),
        reads=_MODEL,
        options=("seed",),
        corrections=(ONE_DECODING,),
        work=_step("steering"),
    ),
    Step(
        "modulation",
        "replies with the circuit modulated",
        needs=("scenarios", "circuit"),
        reads=_MODEL,
        options=("seed",),
        corrections=(LAST_HEADS, ONE_DECODING),
        work=_step("modulation"),
    ),
    Step(
        "verdicts",
        "what the judges hear",
        needs=("scenarios", "elicit", "unsteered", "steering", "modulation"),
        reads=("judge",),
        options=("endpoint", "endpoint_model", "seed"),
        corrections=(),
        work=_step("verdicts"),
    ),
    Step(
        "report",
        "each figure beside the paper's",
        needs=("elicit", "directions", "influence", "circuit", "verdicts"),
        reads=(),
        options=("model", "scenarios", "groups", "events", "accept", "endpoint_model"),
        corrections=tuple(one.name for one in _CORRECTIONS),
        work=_step("report"),
    ),
)

EMOTION_CIRCUITS = Reproduction(
    "emotion-circuits",
    "Do LLMs “Feel”? Emotion circuits, their discovery and their control",
    "Wang et al., 2025, arXiv 2510.11328",
    steps=_STEPS,
    corrections=_CORRECTIONS,
    settings=_settings,
    material=_material,
    figures=_figures,
    remarks=(
        "System prompts are in our words, one line, the same to the byte in all arms without an "
        "emotion.",
        "Layers are scaled by depth from the paper's 28: the band 21 to 25, the steered layers 11 "
        "to 20, 10 units per sublayer.",
        "Influence is measured on the same neutral prompts for every emotion, the paper's on those "
        "whose replies were accepted.",
        "Curves of ablation and enhancement are read in the layer of the units, on test prompts; "
        "the paper's scripts for them are not released.",
        "The circuit is folded into the outputs of attention and MLP, which is the same sum.",
    ),
)
