"""Step ``unsteered``: what the model says to the neutral prompts by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.reproductions.emotion_circuits.replies import generate_said, save_said
from affectlens.reproductions.emotion_circuits.scenarios import FILE, load_events

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun

UNSTEERED = "unsteered.jsonl"


def work(run: StudyRun) -> list[str]:
    """One reply per test event, decoded as the prompted ones."""
    events = load_events(run.input("scenarios", FILE), "test")
    asked = [("", "neutral")]
    replies = generate_said(run.model, events, asked, run.settings.prompted, "unsteered replies")
    save_said(run.folder / UNSTEERED, replies)
    return [UNSTEERED]
