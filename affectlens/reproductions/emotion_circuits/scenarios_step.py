"""Step ``scenarios``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.core import DataError
from affectlens.reproductions.emotion_circuits.scenarios import (
    FILE,
    all_events,
    save_events,
    spread_events,
)

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun


def work(run: StudyRun) -> list[str]:
    """Choose the events that are fitted and tested on."""
    events = all_events(run.request)  # its files are the step's material
    chosen = [
        spread_events([event for event in events if event.split == split], run.option(limit))
        for split, limit in (("fit", "groups"), ("test", "events"))
    ]
    for split, found in zip(("fit on", "test on"), chosen, strict=True):
        if not found:
            raise DataError(f"There is no scenario left to {split}; give more of them.")
    save_events(run.folder / FILE, [event for part in chosen for event in part])
    return [FILE]
