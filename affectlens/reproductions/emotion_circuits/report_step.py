"""Step ``report``: each figure beside the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from affectlens.reproductions.comparison import load_findings, side_by_side
from affectlens.reproductions.writing import facts_of, write_comparison

if TYPE_CHECKING:
    from affectlens.reproductions.study import StudyRun


def work(run: StudyRun) -> list[str]:
    """Join what the steps found with the paper's figures."""
    findings = [
        finding
        for step in run.step.needs
        for finding in load_findings(run.input(step, f"{step}.json"))
    ]
    for name in run.step.options:
        run.option(name)
    rows = side_by_side(run.study.figures(), findings)
    return list(write_comparison(run.folder, facts_of(run), rows))
