"""Figures: the paper's, ours, and the two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affectlens.core.artefact import read_json, write_json
from affectlens.core.errors import ArtefactError

UNTESTED = "untested"
Value = float | str | list[float] | None


@dataclass(frozen=True)
class PaperFigure:
    """A figure as published.

    Attributes:
        id: Dotted, unique: ``"told.steering.anger"``.
        section: What it belongs to.
        what: In words, with its unit.
        value: The figure; None where the study gives none.
        where: Table, section or file it stands in.
    """

    id: str
    section: str
    what: str
    value: Value
    where: str


@dataclass(frozen=True)
class Finding:
    """The same, measured here.

    Attributes:
        id: Of the `PaperFigure`.
        value: What came out; None: untested.
        low, high: 95 % interval, where there is one.
        control: What the same measure gives where nothing should be.
        beside: What the control is.
        note: What else a reader should know.
    """

    id: str
    value: Value
    low: float | None = None
    high: float | None = None
    control: Value = None
    beside: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A figure of the paper and ours."""

    paper: PaperFigure
    here: Finding | None

    def flat(self) -> dict[str, Any]:
        """One row of a table: strings and numbers."""
        here = self.here or Finding(self.paper.id, None)
        return {
            "id": self.paper.id,
            "section": self.paper.section,
            "what": self.paper.what,
            "paper": said(self.paper.value, missing="not given"),
            "here": said(here.value, missing=UNTESTED),
            "low": here.low,
            "high": here.high,
            "control": said(here.control, missing=""),
            "beside": here.beside,
            "where": self.paper.where,
            "note": here.note,
        }


def expanded(raw: Sequence[Mapping[str, Any]]) -> tuple[PaperFigure, ...]:
    """Figures of a data file; one with several values is a figure each.

    Raises:
        ArtefactError: If two have one id.
    """
    found: list[PaperFigure] = []
    for one in raw:
        values = one["value"]
        parts = values.items() if isinstance(values, Mapping) else [("", values)]
        for key, value in parts:
            found.append(
                PaperFigure(
                    id=f"{one['id']}.{key}" if key else one["id"],
                    section=one["section"],
                    what=f"{one['what']}, {key}" if key else one["what"],
                    value=value,
                    where=one["where"],
                )
            )
    ids = [figure.id for figure in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ArtefactError(f"Two figures of the paper are called {twice}; rename one.")
    return tuple(found)


def side_by_side(figures: Sequence[PaperFigure], findings: Iterable[Finding]) -> list[Row]:
    """Every figure of the paper with ours, in the paper's order.

    Raises:
        ArtefactError: If something was measured that the paper's file does not know.
    """
    here = {finding.id: finding for finding in findings}
    known = {figure.id for figure in figures}
    if strays := sorted(set(here) - known):
        raise ArtefactError(f"No figure of the paper is called {', '.join(strays)}.")
    return [Row(figure, here.get(figure.id)) for figure in figures]


def save_findings(
    path: Path, findings: Sequence[Finding], more: Mapping[str, Any] | None = None
) -> None:
    """Write what a step found, and whatever else belongs to it."""
    write_json(path, {"findings": [asdict(finding) for finding in findings], **(more or {})})


def load_findings(path: Path) -> list[Finding]:
    """Inverse of `save_findings`.

    Raises:
        ArtefactError: If the file is missing or damaged.
    """
    try:
        return [Finding(**row) for row in read_json(path)["findings"]]
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is damaged ({error}); run it again with --force.") from error


def said(value: Value, *, missing: str) -> str:
    """A value in words: three digits, lists without brackets."""
    if value is None:
        return missing
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(said(one, missing="") for one in value)
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"
