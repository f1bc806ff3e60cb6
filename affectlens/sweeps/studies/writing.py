"""A study as files: Parquet, JSON, a figure, a page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from affectlens.core.artefact import package_version, write_json, write_text
from affectlens.core.parquet import write_parquet
from affectlens.pipeline.run import writing_alone
from affectlens.plotting.studies import StudySummary, study_figure
from affectlens.reports import Header, ReportData, plain, write
from affectlens.sweeps.studies.base import StudyResult
from affectlens.sweeps.writing import FIGURES, REPORT


def summarise(found: StudyResult) -> StudySummary:
    """What figure and page show."""
    return StudySummary(found.study, [dict(row) for row in found.rows], dict(found.facts))


def report_data(found: StudyResult) -> ReportData:
    """What the page shows."""
    facts = {name: _said(value) for name, value in found.facts.items()}
    header = Header(
        found.model,
        corpus=found.corpus,
        date=date.today().isoformat(),
        package_version=package_version(),
        facts=facts,
    )
    return ReportData(header, studies=(summarise(found),))


def write_study(found: StudyResult, folder: Path) -> None:
    """Write ``STUDY.parquet``, ``STUDY.json``, its further tables, ``figures/STUDY.html`` and
    ``report.html``.

    Raises:
        ArtefactError: If the folder cannot be written.
    """
    tables = {found.study: found.table_rows(), **{k: list(v) for k, v in found.tables.items()}}
    for name, rows in tables.items():
        write_parquet(folder / f"{name}.parquet", [_one_kind(row) for row in rows])
    write_json(
        folder / f"{found.study}.json",
        plain(
            {
                "affectlens": package_version(),
                "study": found.study,
                "model": found.model,
                "corpus": found.corpus,
                "facts": dict(found.facts),
                "rows": found.table_rows(),
                **{name: list(rows) for name, rows in found.tables.items()},
            }
        ),
    )
    page = str(study_figure(summarise(found)).to_html(include_plotlyjs=True, full_html=True))
    write_text(folder / FIGURES / f"{found.study}.html", page)
    write(report_data(found), folder / REPORT)


def studied(make: Callable[[], StudyResult], out: Path) -> StudyResult:
    """Do a study while nobody else writes its folder, and write what it found.

    Raises:
        AffectLensError: In one sentence; what was finished stays and is not done again.
    """
    with writing_alone(out):
        found = make()
        write_study(found, out)
    return found


def _one_kind(row: dict[str, Any]) -> dict[str, Any]:
    """``x`` as text: a column of a table has one type, and some studies have numbers and names."""
    return {**row, "x": str(row["x"])} if "x" in row else row


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
