"""Step ``verdicts``: shares of replies in which a judge hears the emotion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from affectlens.core import EMOTIONS, VALENCES
from affectlens.core.statistics import bootstrap_interval
from affectlens.evaluation.text_metrics import capitals_rate, mean_words, repetition_rate
from affectlens.reproductions.comparison import Finding, save_findings
from affectlens.reproductions.emotion_circuits import modulation_step, steering_step
from affectlens.reproductions.emotion_circuits.elicit_step import ELICITED
from affectlens.reproductions.emotion_circuits.replies import (
    Said,
    load_said,
    save_said,
    told_verdicts,
)
from affectlens.reproductions.emotion_circuits.unsteered_step import UNSTEERED

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

VERDICTS = "verdicts.jsonl"
FINDINGS = "verdicts.json"
SHOUTING = 0.2
"""Share of words in capitals above which a reply counts as shouting."""
_GENERATED = {
    "steering": ("steering", steering_step.STEERED),
    "steering_random": ("steering", steering_step.CONTROL),
    "circuit": ("modulation", modulation_step.MODULATED),
    "circuit_random": ("modulation", modulation_step.CONTROL),
}
_BESIDE = {
    "prompted_fit": "unsteered replies",
    "prompted": "unsteered replies",
    "steering": "random directions of the same size",
    "circuit": "random units of the same layers",
}


def work(run: StudyRun) -> list[str]:
    """Judge the replies of every arm, blind and, behind an endpoint, told the target."""
    arms = {name: load_said(run.input(*place)) for name, place in _GENERATED.items()}
    arms["unsteered"] = [
        replace(reply, emotion=emotion)
        for reply in load_said(run.input("unsteered", UNSTEERED))
        for emotion in EMOTIONS
    ]
    for name, replies in arms.items():
        blind = run.judge([reply.text for reply in replies]).chosen
        told = told_verdicts(run, replies)
        arms[name] = [
            replace(reply, blind=heard, told=match)
            for reply, heard, match in zip(replies, blind, told, strict=True)
        ]
    elicited = load_said(run.input("elicit", ELICITED))
    arms["prompted_fit"] = [reply for reply in elicited if reply.split == "fit"]
    arms["prompted"] = [reply for reply in elicited if reply.split == "test"]
    save_said(run.folder / VERDICTS, [reply for name in _GENERATED for reply in arms[name]])
    findings: list[Finding] = []
    seed = run.option("seed")
    for name, beside in _BESIDE.items():
        control = arms.get(f"{name}_random", arms["unsteered"])
        findings += accuracies(f"blind.{name}", arms[name], control, heard_blind, beside, seed)
        if any(reply.told is not None for reply in arms[name]):
            findings += accuracies(f"told.{name}", arms[name], control, heard_told, beside, seed)
        if name != "prompted_fit":
            findings += _texts(name, arms[name])
    save_findings(run.folder / FINDINGS, findings)
    return [VERDICTS, FINDINGS]


def heard_blind(reply: Said) -> float:
    """1 if the blind judge names the target."""
    return float(reply.blind == reply.emotion)


def heard_told(reply: Said) -> float:
    """1 if the judge that is told the target says yes; no answer counts as no, as published."""
    return float(bool(reply.told))


def accuracies(
    name: str,
    replies: Sequence[Said],
    control: Sequence[Said],
    heard: Callable[[Said], float],
    beside: str,
    seed: int,
) -> list[Finding]:
    """Per cent of replies, overall, by emotion and by valence, with intervals over scenarios."""
    parts: list[tuple[str, Callable[[Said], bool]]] = [("overall", lambda _reply: True)]
    parts += [(e, lambda reply, e=e: reply.emotion == e) for e in EMOTIONS]
    parts += [(v, lambda reply, v=v: reply.valence == v) for v in VALENCES]
    findings: list[Finding] = []
    for part, inside in parts:
        chosen = [reply for reply in replies if inside(reply)]
        others = [heard(reply) for reply in control if inside(reply)]
        if not chosen:
            continue
        hits = np.array([heard(reply) for reply in chosen])
        ends = bootstrap_interval(hits, [reply.skeleton for reply in chosen], random=seed)
        low, high = (None if np.isnan(x) else 100 * float(x) for x in ends)
        findings.append(
            Finding(
                f"{name}.{part}",
                100 * float(hits.mean()),
                low,
                high,
                100 * float(np.mean(others)) if others else None,
                beside if others else "",
                f"{len(chosen)} replies",
            )
        )
    return findings


def _texts(name: str, replies: Sequence[Said]) -> list[Finding]:
    texts = [reply.text for reply in replies]
    loud = [capitals_rate([text]) > SHOUTING for text in texts]
    return [
        Finding(f"text.{name}.words", mean_words(texts)),
        Finding(f"text.{name}.capitals", 100 * float(np.mean(loud))),
        Finding(f"text.{name}.repeated", 100 * repetition_rate(texts)),
    ]
