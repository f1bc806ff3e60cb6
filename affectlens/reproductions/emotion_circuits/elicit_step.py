"""Step ``elicit``: replies under a system prompt that asks for an emotion, accepted by a judge."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from affectlens.core import EMOTIONS
from affectlens.reproductions.comparison import Finding, save_findings
from affectlens.reproductions.emotion_circuits.replies import (
    Said,
    generate_said,
    require_system_role,
    save_said,
    told_verdicts,
)
from affectlens.reproductions.emotion_circuits.scenarios import FILE, load_events

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

ELICITED = "elicited.jsonl"
FINDINGS = "elicit.json"


def work(run: StudyRun) -> list[str]:
    """Ask for every emotion on every content, greedily, and keep what the judges say."""
    require_system_role(run.model)
    run.option("seed")
    events = load_events(run.input("scenarios", FILE))
    asked = [(emotion, emotion) for emotion in EMOTIONS]
    replies = generate_said(run.model, events, asked, run.settings.prompted, "prompted replies")
    blind = run.judge([reply.text for reply in replies]).chosen
    told = told_verdicts(run, replies)
    replies = [
        replace(reply, blind=heard, told=match)
        for reply, heard, match in zip(replies, blind, told, strict=True)
    ]
    save_said(run.folder / ELICITED, replies)
    groups = {reply.group for reply in replies if reply.split == "fit"}
    kept = complete(accepted(replies, run.option("accept")))
    note = {
        "all": "all prompts kept",
        "judge": "the blind judge accepts, as no other is named"
        if run.option("endpoint") is None
        else "the judge told the target accepts",
    }[run.option("accept")]
    share = 100 * len(kept) / len(groups)
    save_findings(
        run.folder / FINDINGS,
        [Finding("groups.accepted", share, note=f"{len(kept)} of {len(groups)}; {note}")],
    )
    return [ELICITED, FINDINGS]


def accepted(replies: list[Said], accept: str) -> list[Said]:
    """Fitting prompts whose reply is accepted: by the judge that is told, or else the blind one."""
    fit = [reply for reply in replies if reply.split == "fit"]
    if accept == "all":
        return fit
    if any(reply.told is not None for reply in fit):
        return [reply for reply in fit if reply.told]
    return [reply for reply in fit if reply.blind == reply.emotion]


def complete(replies: list[Said]) -> set[str]:
    """Contents that have a reply for every emotion."""
    found: dict[str, set[str]] = {}
    for reply in replies:
        found.setdefault(reply.group, set()).add(reply.emotion)
    return {group for group, emotions in found.items() if emotions >= set(EMOTIONS)}
